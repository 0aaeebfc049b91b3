//! Named contexts of this user.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{AUTHORITIES, Context, ContextError, FILE, KEY, MAX, TOKEN};
use crate::files::{self, FileError};

const CURRENT: &str = "current";
const CONTEXTS: &str = "contexts";

/// Directory of the contexts: `$MUSTER_CONFIG`, else `muster` in the user's configuration
/// directory.
#[derive(Debug, Clone)]
pub(crate) struct ContextStore(PathBuf);

impl ContextStore {
    /// Returns the store of the current user. The directory need not exist yet.
    pub(crate) fn of_user() -> Result<Self, ContextError> {
        if let Some(path) = env::var_os("MUSTER_CONFIG").filter(|path| !path.is_empty()) {
            return Ok(Self(path.into()));
        }
        let base = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        let base = base.or_else(home).filter(|path| path.is_absolute());
        Ok(Self(base.ok_or(ContextError::NoHome)?.join("muster")))
    }

    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Directory of the context of that name, whether it exists or not.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, ContextError> {
        let fits = (1..=64).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if fits {
            Ok(self.0.join(CONTEXTS).join(name))
        } else {
            Err(ContextError::Name(name.to_owned()))
        }
    }

    /// Names of all contexts, sorted. Fails if they cannot be read: that is not "no context".
    pub(crate) fn names(&self) -> Result<Vec<String>, ContextError> {
        let directory = self.0.join(CONTEXTS);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(read_error(&directory))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(read_error(&directory))?;
            if let Ok(name) = entry.file_name().into_string()
                && is_context(&entry.path())?
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Name of the current context, if one was chosen.
    pub(crate) fn current(&self) -> Result<Option<String>, ContextError> {
        match files::read(&self.0.join(CURRENT), MAX) {
            Err(error) if error.is_missing() => Ok(None),
            text => {
                // A later version may write more lines.
                let name = text?.lines().next().unwrap_or_default().trim().to_owned();
                Ok(Some(name).filter(|name| !name.is_empty()))
            }
        }
    }

    /// Opens a context by name or by path (anything with a `/`). Without either, opens the current
    /// context, and without that, the only one.
    pub(crate) fn open(&self, requested: Option<&str>) -> Result<Context, ContextError> {
        if let Some(path) = requested.filter(|path| path.contains('/')) {
            return Context::load(Path::new(path), path);
        }
        let names = self.names()?;
        let name = match (requested, self.current()?, names.as_slice()) {
            (Some(name), _, _) => name.to_owned(),
            (None, Some(current), names) if names.contains(&current) => current,
            (None, _, [only]) => only.clone(),
            (None, _, []) => return Err(ContextError::NoContext),
            (None, _, _) => {
                return Err(ContextError::NoCurrent { known: names.join(", ") });
            }
        };
        let directory = self.directory(&name)?;
        if !names.contains(&name) {
            return Err(match names.as_slice() {
                [] => ContextError::NoContext,
                _ => ContextError::Unknown { name, known: names.join(", ") },
            });
        }
        Context::load(&directory, &name)
    }

    /// Makes a context the current one and returns the previous one, if it was another. For a new
    /// context the result is right only if [`Self::pin_current`] was called before creating it.
    pub(crate) fn set_current(&self, name: &str) -> Result<Option<String>, ContextError> {
        self.open(Some(name))?;
        let names = self.names()?;
        let previous = self.current()?.filter(|current| current != name && names.contains(current));
        files::replace(&self.0.join(CURRENT), format!("{name}\n").as_bytes())?;
        Ok(previous)
    }

    /// Records the only context as the current one, so that it stays current when another is added,
    /// even one with the name that was chosen last.
    pub(crate) fn pin_current(&self) -> Result<(), ContextError> {
        match self.open(None) {
            Ok(context) => self.set_current(&context.name).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Returns the directory for a new context of that name. Fails if it exists; creates nothing.
    pub(crate) fn unused_directory(&self, name: &str) -> Result<PathBuf, ContextError> {
        let directory = self.directory(name)?;
        if is_context(&directory)? {
            return Err(ContextError::AlreadyExists(name.to_owned()));
        }
        Ok(directory)
    }

    /// Creates the directory for a new context of that name and returns its path.
    fn create_directory(&self, name: &str) -> Result<PathBuf, ContextError> {
        let directory = self.unused_directory(name)?;
        files::create_private_directory(&directory)?;
        Ok(directory)
    }

    /// Copies a context into the store. Does not change the current one.
    pub(crate) fn add(
        &self,
        from: &Context,
        name: &str,
        endpoints: &[String],
    ) -> Result<(), ContextError> {
        self.unused_directory(name)?;
        self.pin_current()?;
        let directory = self.create_directory(name)?;
        let mut description = from.description.clone();
        for endpoint in endpoints {
            if !description.endpoints.contains(endpoint) {
                description.endpoints.push(endpoint.clone());
            }
        }
        let text = super::compose(&directory.join(FILE), &description)?;
        let mut copies = vec![(directory.join(FILE), zeroize::Zeroizing::new(text))];
        copies.push((directory.join(KEY), super::read_secret(&from.directory.join(KEY))?));
        for optional in [TOKEN, AUTHORITIES] {
            match files::read(&from.directory.join(optional), MAX) {
                Ok(text) => copies.push((directory.join(optional), text)),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let copies: Vec<(PathBuf, &[u8])> =
            copies.iter().map(|(path, text)| (path.clone(), text.as_bytes())).collect();
        Ok(files::create_all(&copies)?)
    }

    /// Returns the directory of an existing context, even of a damaged one.
    pub(crate) fn existing_directory(&self, name: &str) -> Result<PathBuf, ContextError> {
        let directory = self.directory(name)?;
        if is_context(&directory)? {
            return Ok(directory);
        }
        Err(ContextError::Unknown { name: name.to_owned(), known: self.names()?.join(", ") })
    }

    /// Removes a context's own files, and its directory if nothing else is in it.
    pub(crate) fn remove(&self, name: &str) -> Result<(), ContextError> {
        let directory = self.existing_directory(name)?;
        for file in [KEY, TOKEN, AUTHORITIES, FILE] {
            files::remove(&directory.join(file))?;
        }
        if self.current()?.as_deref() == Some(name) {
            files::remove(&self.0.join(CURRENT))?;
        }
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                Err(FileError::Remove(directory, error).into())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Returns true if the directory holds a context.
fn is_context(directory: &Path) -> Result<bool, ContextError> {
    let file = directory.join(FILE);
    match fs::metadata(&file) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(false)
        }
        Err(error) => Err(read_error(&file)(error)),
    }
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> ContextError {
    |error| FileError::Read(path.to_owned(), error).into()
}

#[cfg(test)]
mod tests {
    use muster_pki::identity::Identity;
    use muster_pki::token::Token;

    use super::*;
    use crate::context::{Description, new_files};

    fn put(store: &ContextStore, name: &str) {
        let directory = store.create_directory(name).unwrap();
        let description = Description {
            format: crate::context::FORMAT,
            cluster_name: name.to_owned(),
            operator: "admin".to_owned(),
            endpoints: vec!["127.0.0.1".to_owned()],
            learned: Vec::new(),
            cluster_id: None,
            local: None,
            unknown: std::collections::BTreeMap::new(),
        };
        let files =
            new_files(&directory, &description, &Identity::generate(), &Token::generate()).unwrap();
        let files: Vec<_> = files.iter().map(|(p, t)| (p.clone(), t.as_bytes())).collect();
        files::create_all(&files).unwrap();
    }

    #[test]
    fn the_only_context_needs_no_choosing_and_two_do() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(dir.path());
        assert!(matches!(store.open(None), Err(ContextError::NoContext)));
        put(&store, "one");
        assert_eq!(store.open(None).unwrap().name, "one");
        put(&store, "two");
        let error = store.open(None).unwrap_err();
        assert!(matches!(&error, ContextError::NoCurrent { known } if known == "one, two"));
        assert!(error.to_string().contains("try: `musterctl context use NAME`"), "{error}");
        store.set_current("two").unwrap();
        assert_eq!(store.open(None).unwrap().name, "two");
        assert!(matches!(store.unused_directory("two"), Err(ContextError::AlreadyExists(_))));
        assert!(matches!(store.open(Some("three")), Err(ContextError::Unknown { .. })));
        store.remove("two").unwrap();
        assert_eq!(
            (store.current().unwrap(), store.names().unwrap()),
            (None, vec!["one".to_owned()])
        );
    }

    #[test]
    fn the_current_context_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(dir.path());
        put(&store, "one");
        store.set_current("one").unwrap();
        let path = store.0.join(CURRENT);
        let sample = muster_compat::check("ctl/current.txt", &fs::read(&path).unwrap());
        for text in [sample.clone(), [&sample[..], b"more\n"].concat()] {
            fs::write(&path, text).unwrap();
            assert_eq!(store.current().unwrap().as_deref(), Some("one"));
        }
    }

    /// Regression: the context was removed, and then the command failed.
    #[test]
    fn a_removed_context_leaves_only_the_files_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(dir.path());
        put(&store, "one");
        put(&store, "two");
        let directory = store.directory("one").unwrap();
        fs::write(directory.join("notes.txt"), "mine").unwrap();
        store.remove("one").unwrap();
        store.remove("two").unwrap();
        let left: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
        assert!(!store.directory("two").unwrap().exists());
        assert!(store.names().unwrap().is_empty());
    }

    #[test]
    fn choosing_says_which_context_was_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(dir.path());
        put(&store, "one");
        assert_eq!(store.set_current("one").unwrap(), None);
        put(&store, "two");
        assert_eq!(store.set_current("two").unwrap().as_deref(), Some("one"));
        assert_eq!(store.set_current("two").unwrap(), None);
        store.remove("two").unwrap();
        // Current only because it is the only one.
        assert_eq!(
            (store.current().unwrap(), store.open(None).unwrap().name),
            (None, "one".to_owned())
        );
        store.pin_current().unwrap();
        put(&store, "three");
        assert_eq!(store.set_current("three").unwrap().as_deref(), Some("one"));
        store.remove("three").unwrap();
        store.pin_current().unwrap();
        put(&store, "four");
        assert_eq!(store.open(None).unwrap().name, "one");
    }

    /// Regression: the switch was not reported, though commands had used the only context there
    /// was.
    #[test]
    fn a_context_of_the_name_of_one_that_is_gone_was_not_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(dir.path());
        put(&store, "one");
        put(&store, "two");
        store.set_current("two").unwrap();
        fs::remove_dir_all(store.directory("two").unwrap()).unwrap();
        assert_eq!(store.current().unwrap().as_deref(), Some("two"));
        let one = store.open(None).unwrap();
        assert_eq!(one.name, "one");
        store.add(&one, "two", &[]).unwrap();
        assert_eq!(store.set_current("two").unwrap().as_deref(), Some("one"));
    }

    /// Regression: a directory that could not be read was "no context yet".
    #[test]
    fn contexts_that_cannot_be_read_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(dir.path());
        // Neither can be read as what it should be, by root either.
        fs::write(dir.path().join(CONTEXTS), "").unwrap();
        assert!(matches!(store.open(None), Err(ContextError::File(FileError::Read(..)))));
        assert!(store.names().is_err());
        fs::remove_file(dir.path().join(CONTEXTS)).unwrap();
        put(&store, "one");
        fs::write(dir.path().join(CONTEXTS).join("a-file"), "").unwrap();
        assert_eq!(store.names().unwrap(), ["one"]);
        fs::create_dir(dir.path().join(CURRENT)).unwrap();
        assert!(store.current().is_err() && store.open(None).is_err());
        fs::remove_dir(dir.path().join(CURRENT)).unwrap();
        let looped = dir.path().join(CONTEXTS).join("two");
        fs::create_dir(&looped).unwrap();
        std::os::unix::fs::symlink(FILE, looped.join(FILE)).unwrap();
        let error = store.open(None).unwrap_err();
        assert!(error.to_string().contains("two/context.yaml"), "{error}");
    }

    #[test]
    fn names_never_leave_the_store() {
        let store = ContextStore::at(Path::new("/nowhere"));
        for bad in ["", "..", ".x", "a/b", "a b", &"x".repeat(65)] {
            assert!(matches!(store.directory(bad), Err(ContextError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_context_can_be_used_by_its_path_and_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (there, here) =
            (ContextStore::at(&dir.path().join("a")), ContextStore::at(&dir.path().join("b")));
        put(&there, "one");
        let path = there.directory("one").unwrap();
        let by_path = here.open(Some(path.to_str().unwrap())).unwrap();
        here.add(&by_path, "uno", &["10.0.0.1".to_owned()]).unwrap();
        let copy = here.open(None).unwrap();
        assert_eq!(copy.description.endpoints, ["127.0.0.1", "10.0.0.1"]);
        assert_eq!(copy.identity().unwrap().public_key(), by_path.identity().unwrap().public_key());
        assert_eq!(copy.token().unwrap().unwrap().id(), by_path.token().unwrap().unwrap().id());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let store = ContextStore::at(dir.path());
        put(&store, "one");
        let key = store.directory("one").unwrap().join(KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = store.open(None).unwrap().identity().unwrap_err();
        assert!(matches!(error, ContextError::InsecurePermissions(_)), "{error}");
    }
}
