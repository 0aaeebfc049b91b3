//! Import cycles: which module of a crate depends on which, and the groups in which each depends on
//! each other. A module may call its own descendants by path, and `pub use` what they hold: it puts
//! them together. That counts as no dependency, as long as it imports nothing from them. It compares modules of one crate only; Cargo itself allows no cycle between crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::imports::{self, Import, Kind, Scope};
use crate::modules::{ModulePath, Modules};

/// Longest chain of re-exports that is followed.
const MAX_HOPS: usize = 16;

/// Modules of which each depends, directly or not, on every other one.
#[derive(Debug, PartialEq, Eq)]
pub struct Cycle {
    pub modules: BTreeSet<ModulePath>,
    /// Imports within the group: from, to, path as written.
    pub imports: Vec<(ModulePath, ModulePath, String)>,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.modules.iter().map(|path| name(path)).collect();
        write!(f, "{}", names.join(", "))?;
        for (from, to, path) in &self.imports {
            write!(f, "\n    {} -> {} by `{path}`", name(from), name(to))?;
        }
        Ok(())
    }
}

/// Name of a module, as in a path from the crate's root.
pub fn name(path: &[String]) -> String {
    if path.is_empty() { "crate".to_owned() } else { path.join("::") }
}

/// Finds the cycles of the crate whose root is the file `root`.
pub fn find(root: &Path) -> Result<Vec<Cycle>> {
    let graph = Graph::new(Modules::read(root)?);
    Ok(graph.cycles())
}

/// Direct dependencies of each module, with the path that shows each.
type Edges = BTreeMap<ModulePath, BTreeMap<ModulePath, String>>;

struct Graph {
    modules: Modules,
    scopes: BTreeMap<ModulePath, Scope>,
    edges: Edges,
}

impl Graph {
    fn new(modules: Modules) -> Self {
        let mut imports = Vec::new();
        let mut scopes = BTreeMap::new();
        for (path, module) in &modules.by_path {
            let (found, names) = imports::of(path, &module.items);
            imports.extend(found);
            scopes.extend(names);
        }
        let mut graph = Self { modules, scopes, edges: Edges::new() };
        for import in imports {
            graph.add(&import);
        }
        graph
    }

    fn add(&mut self, import: &Import) {
        let from = self.modules.file_module(&import.at).to_vec();
        for target in self.resolve(&import.at, &import.path, 0) {
            let to = self.modules.file_module(&target).to_vec();
            let is_facade = import.kind != Kind::Use && to.starts_with(&from);
            if to != from && !is_facade {
                let shown = || import.path.join("::");
                self.edges.entry(from.clone()).or_default().entry(to).or_insert_with(shown);
            }
        }
    }

    /// The modules that `path` leads to when `at` names it: the module that it names, and the one
    /// that holds the item if the former re-exports it.
    fn resolve(&self, at: &[String], path: &[String], hops: usize) -> BTreeSet<ModulePath> {
        let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
        if hops > MAX_HOPS {
            return BTreeSet::new();
        }
        match first.as_str() {
            "crate" => self.descend(Vec::new(), rest, hops),
            "self" => self.descend(at.to_vec(), rest, hops),
            "super" => {
                let mut base = at.to_vec();
                base.pop();
                let mut rest = rest;
                while let Some(("super", more)) = rest.split_first().map(|(s, m)| (s.as_str(), m)) {
                    base.pop();
                    rest = more;
                }
                self.descend(base, rest, hops)
            }
            _ if self.modules.contains(&child(at, first)) => {
                self.descend(child(at, first), rest, hops)
            }
            _ => self.through_names(at, first, rest, hops),
        }
    }

    /// The modules that the rest of a path leads to from `base`.
    fn descend(&self, mut base: ModulePath, path: &[String], hops: usize) -> BTreeSet<ModulePath> {
        let mut rest = path;
        while let Some((first, more)) = rest.split_first() {
            if !self.modules.contains(&child(&base, first)) {
                break;
            }
            base.push(first.clone());
            rest = more;
        }
        let mut found = match rest.split_first() {
            Some((first, more)) => self.through_names(&base, first, more, hops),
            None => BTreeSet::new(),
        };
        found.insert(base);
        found
    }

    /// The modules behind `first`, a name that `use` brings into the module at `base`.
    fn through_names(
        &self,
        base: &[String],
        first: &String,
        rest: &[String],
        hops: usize,
    ) -> BTreeSet<ModulePath> {
        let Some(scope) = self.scopes.get(base) else { return BTreeSet::new() };
        if scope.items.contains(first) {
            return BTreeSet::new();
        }
        if let Some(target) = scope.names.get(first) {
            // `use anyhow;` stands for itself.
            let path: Vec<_> = target.iter().chain(rest).cloned().collect();
            let is_itself = target.first() == Some(first);
            return if is_itself { BTreeSet::new() } else { self.resolve(base, &path, hops + 1) };
        }
        let globs = scope.globs.iter().flat_map(|glob| {
            let path: Vec<_> = glob.iter().chain([first]).chain(rest).cloned().collect();
            // A glob of an external crate, or of an enum, leads nowhere.
            let target = self.resolve(base, glob, hops + 1);
            let defines = target.iter().any(|module| self.defines(module, first));
            if defines { self.resolve(base, &path, hops + 1) } else { BTreeSet::new() }
        });
        globs.collect()
    }

    fn defines(&self, module: &[String], name: &String) -> bool {
        self.modules.contains(&child(module, name))
            || self
                .scopes
                .get(module)
                .is_some_and(|scope| scope.items.contains(name) || scope.names.contains_key(name))
    }

    fn cycles(&self) -> Vec<Cycle> {
        let reach: BTreeMap<_, _> =
            self.edges.keys().map(|module| (module, self.reachable(module))).collect();
        let mut grouped = BTreeSet::new();
        let mut cycles = Vec::new();
        for (module, reached) in &reach {
            if grouped.contains(*module) || !reached.contains(*module) {
                continue;
            }
            let returns =
                |other: &&ModulePath| reach.get(*other).is_some_and(|back| back.contains(*module));
            let modules: BTreeSet<_> = reached.iter().filter(returns).cloned().collect();
            grouped.extend(modules.iter().cloned());
            cycles.push(Cycle { imports: self.within(&modules), modules });
        }
        cycles
    }

    fn within(&self, group: &BTreeSet<ModulePath>) -> Vec<(ModulePath, ModulePath, String)> {
        let edges = self.edges.iter().filter(|(from, _)| group.contains(*from));
        edges
            .flat_map(|(from, to)| to.iter().map(move |(to, path)| (from, to, path)))
            .filter(|(_, to, _)| group.contains(*to))
            .map(|(from, to, path)| (from.clone(), to.clone(), path.clone()))
            .collect()
    }

    /// Every module that a chain of imports leads to from `module`.
    fn reachable(&self, module: &ModulePath) -> BTreeSet<ModulePath> {
        let mut found = BTreeSet::new();
        let mut left = vec![module];
        while let Some(next) = left.pop() {
            for to in self.edges.get(next).into_iter().flat_map(BTreeMap::keys) {
                if found.insert(to.clone()) {
                    left.push(to);
                }
            }
        }
        found
    }
}

fn child(module: &[String], name: &String) -> ModulePath {
    module.iter().chain([name]).cloned().collect()
}

#[cfg(test)]
mod tests;
