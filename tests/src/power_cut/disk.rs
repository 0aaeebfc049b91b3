//! The traced directory: its names and files, durable and not, and the result of a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, RngExt};

use super::sectors::{Change, File};
use super::strace::Event;

/// State of a directory tree.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Number 0 is the traced directory, which is durable.
    nodes: Vec<Node>,
    played: usize,
    /// Number of events played before the current trace began.
    before: usize,
    order: NameOrder,
}

/// Order in which changes of names reach the disk without a sync of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameOrder {
    /// As they were made, up to any point (ext4 and xfs).
    Journal,
    /// Any of them. Only changes of the same names stay in order.
    Free,
}

/// Changes that a cut dropped, for the report of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    pub names: usize,
}

#[derive(Debug, Clone)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Debug, Clone, Default)]
struct Directory {
    durable: Names,
    now: Names,
    pending: Vec<(usize, NameChange)>,
}

type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone)]
enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    /// Names that it changes.
    fn names(&self) -> impl Iterator<Item = &str> {
        let (one, other) = match self {
            Self::Add(name, _) | Self::Remove(name) => (name, None),
            Self::Rename(from, to) => (from, Some(to)),
        };
        std::iter::once(one).chain(other).map(String::as_str)
    }

    fn perform(&self, names: &mut Names) {
        match self {
            Self::Add(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            nodes: vec![Node::Directory(Directory::default())],
            played: 0,
            before: 0,
            order: NameOrder::Journal,
        }
    }
}

impl Disk {
    /// Loads a directory that has been on disk for long.
    pub fn load(from: &Path) -> Result<Self> {
        let mut disk = Self::default();
        disk.load_into(0, from)?;
        Ok(disk)
    }

    /// Returns the disk on a file system whose journal keeps no order among names.
    #[must_use]
    pub fn with_names_in_any_order(self) -> Self {
        Self { order: NameOrder::Free, ..self }
    }

    fn load_into(&mut self, at: usize, from: &Path) -> Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a name that is not text")?;
            let node = self.nodes.len();
            if entry.file_type()?.is_dir() {
                self.nodes.push(Node::Directory(Directory::default()));
                self.load_into(node, &entry.path())?;
            } else {
                let mut file = File::default();
                file.change(0, Change::Write { offset: 0, bytes: fs::read(entry.path())? });
                file.sync(1);
                self.nodes.push(Node::File(file));
            }
            let directory = self.directory(at)?;
            directory.now.insert(name.clone(), node);
            directory.durable.insert(name, node);
        }
        Ok(())
    }

    /// Applies the next event of a trace.
    pub fn play(&mut self, event: &Event) -> Result<()> {
        self.perform(event).with_context(|| match event {
            Event::Write { path, offset, bytes } => {
                format!("write {} bytes at {offset} of {}", bytes.len(), path.display())
            }
            other => format!("{other:?}"),
        })?;
        self.played += 1;
        Ok(())
    }

    fn perform(&mut self, event: &Event) -> Result<()> {
        let number = self.played;
        match event {
            Event::Line(_) | Event::Nothing => {}
            Event::MakeFile(path) => {
                if self.find(path).is_err() {
                    self.add(path, Node::File(File::default()))?;
                }
            }
            Event::MakeDir(path) => self.add(path, Node::Directory(Directory::default()))?,
            Event::Write { path, offset, bytes } => {
                let offset = usize::try_from(*offset)?;
                self.file(path)?.change(number, Change::Write { offset, bytes: bytes.clone() });
            }
            Event::SetLength { path, length } => {
                let length = usize::try_from(*length)?;
                self.file(path)?.change(number, Change::SetLength(length));
            }
            Event::Sync { path, begun } => {
                let node = self.find(path)?;
                let begun = self.before + begun;
                match &mut self.nodes[node] {
                    Node::File(file) => file.sync(begun),
                    Node::Directory(directory) => directory.sync(begun),
                }
            }
            Event::Rename { from, to } => {
                let (parent, from) = self.parent_and_name(from)?;
                let (parent_after, to) = self.parent_and_name(to)?;
                ensure!(parent == parent_after, "moving between directories is not modelled");
                self.directory(parent)?.change(number, NameChange::Rename(from, to));
            }
            Event::Remove(path) => {
                let (parent, name) = self.parent_and_name(path)?;
                self.directory(parent)?.change(number, NameChange::Remove(name));
            }
        }
        Ok(())
    }

    /// Writes to `to`, an empty directory, one possible result of a power cut at this point.
    pub fn cut(&self, to: &Path, rng: &mut impl Rng) -> Result<Dropped> {
        let mut dropped = Dropped { names: 0 };
        self.write(0, to, &mut |node| match node {
            Node::File(file) => NodeContents::Contents(file.after_cut(rng)),
            Node::Directory(directory) => {
                let (names, lost) = directory.after_cut(self.order, rng);
                dropped.names += lost;
                NodeContents::Names(names)
            }
        })?;
        Ok(dropped)
    }

    /// Writes to `to`, an empty directory, the contents while the power is on: what a killed victim
    /// leaves to its successor. The successor's trace is played next.
    pub fn write_live(&mut self, to: &Path) -> Result<()> {
        self.before = self.played;
        self.write(0, to, &mut |node| match node {
            Node::File(file) => NodeContents::Contents(file.contents()),
            Node::Directory(directory) => NodeContents::Names(directory.now.clone()),
        })
    }

    /// Checks that the model agrees with the kernel: `real` is the directory that the victim left.
    pub fn compare(&self, real: &Path) -> Result<()> {
        self.compare_at(0, real)
    }

    fn compare_at(&self, at: usize, real: &Path) -> Result<()> {
        match &self.nodes[at] {
            Node::File(file) => {
                let (model, real_bytes) = (file.contents(), fs::read(real)?);
                ensure!(
                    model == real_bytes,
                    "the model of {} differs from the file ({} and {} bytes)",
                    real.display(),
                    model.len(),
                    real_bytes.len()
                );
            }
            Node::Directory(directory) => {
                let mut names: Vec<String> = fs::read_dir(real)?
                    .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
                    .collect::<Result<_>>()?;
                names.sort();
                let model: Vec<_> = directory.now.keys().cloned().collect();
                ensure!(
                    names == model,
                    "the model of {} has {model:?}, not {names:?}",
                    real.display()
                );
                for (name, node) in &directory.now {
                    self.compare_at(*node, &real.join(name))?;
                }
            }
        }
        Ok(())
    }

    fn write(
        &self,
        at: usize,
        to: &Path,
        choose: &mut impl FnMut(&Node) -> NodeContents,
    ) -> Result<()> {
        match choose(&self.nodes[at]) {
            NodeContents::Contents(bytes) => fs::write(to, bytes)?,
            NodeContents::Names(names) => {
                for (name, node) in names {
                    let path = to.join(name);
                    if let Node::Directory(_) = self.nodes[node] {
                        make_private(&path)?;
                    }
                    self.write(node, &path, choose)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, node: Node) -> Result<()> {
        let (parent, name) = self.parent_and_name(path)?;
        let added = self.nodes.len();
        let number = self.played;
        self.nodes.push(node);
        self.directory(parent)?.change(number, NameChange::Add(name, added));
        Ok(())
    }

    fn find(&self, path: &Path) -> Result<usize> {
        let mut at = 0;
        for part in path.components() {
            let Component::Normal(name) = part else { bail!("an odd path") };
            let Node::Directory(directory) = &self.nodes[at] else { bail!("not a directory") };
            at = *directory
                .now
                .get(&*name.to_string_lossy())
                .with_context(|| format!("nothing at {}", path.display()))?;
        }
        Ok(at)
    }

    fn parent_and_name(&self, path: &Path) -> Result<(usize, String)> {
        let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
        Ok((self.find(path.parent().context("no parent")?)?, name))
    }

    fn file(&mut self, path: &Path) -> Result<&mut File> {
        let node = self.find(path)?;
        match &mut self.nodes[node] {
            Node::File(file) => Ok(file),
            Node::Directory(_) => bail!("a directory"),
        }
    }

    fn directory(&mut self, at: usize) -> Result<&mut Directory> {
        match &mut self.nodes[at] {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => bail!("not a directory"),
        }
    }
}

enum NodeContents {
    Contents(Vec<u8>),
    Names(Names),
}

impl Directory {
    fn change(&mut self, event: usize, change: NameChange) {
        change.perform(&mut self.now);
        self.pending.push((event, change));
    }

    fn sync(&mut self, begun: usize) {
        let kept = self.pending.iter().position(|(event, _)| *event >= begun);
        for (_, change) in self.pending.drain(..kept.unwrap_or(self.pending.len())) {
            change.perform(&mut self.durable);
        }
    }

    fn after_cut(&self, order: NameOrder, rng: &mut impl Rng) -> (Names, usize) {
        let mut names = self.durable.clone();
        let mut lost = 0;
        if order == NameOrder::Journal || rng.random() {
            let arrived = rng.random_range(0..=self.pending.len());
            for (_, change) in &self.pending[..arrived] {
                change.perform(&mut names);
            }
            lost = self.pending.len() - arrived;
        } else {
            let mut delayed = BTreeSet::new();
            for (_, change) in &self.pending {
                if change.names().any(|name| delayed.contains(name)) || rng.random() {
                    delayed.extend(change.names());
                    lost += 1;
                } else {
                    change.perform(&mut names);
                }
            }
        }
        (names, lost)
    }
}

/// Makes a directory with access for its owner only, as every victim does.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    Ok(fs::DirBuilder::new().mode(0o700).create(path)?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn names_may_arrive_without_those_before_but_never_against_their_own_order() {
        let mut disk = Disk::default().with_names_in_any_order();
        let (old, new, other) = ("old".into(), PathBuf::from("new"), PathBuf::from("other"));
        disk.play(&Event::MakeFile(old)).unwrap();
        disk.play(&Event::Sync { path: PathBuf::new(), begun: 1 }).unwrap();
        disk.play(&Event::MakeFile(new.clone())).unwrap();
        disk.play(&Event::Rename { from: new, to: "old".into() }).unwrap();
        disk.play(&Event::MakeFile(other)).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let dir = tempfile::tempdir().unwrap();
            disk.cut(dir.path(), &mut StdRng::seed_from_u64(seed)).unwrap();
            let names = fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            seen.insert(names.join(" ".as_ref()).into_string().unwrap());
        }
        let possible = ["new old", "new old other", "old", "old other"].map(str::to_owned);
        assert_eq!(seen, possible.into());
    }
}
