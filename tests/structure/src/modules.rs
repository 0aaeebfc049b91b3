//! The module tree of one crate: files found by following `mod` declarations from the crate's root,
//! as the compiler does. Modules that exist only in tests are left out. It does not look at imports.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use syn::punctuated::Punctuated;
use syn::{Attribute, Item, Meta, Token};

/// Names of the modules from the crate's root down; empty for the root.
pub(crate) type ModulePath = Vec<String>;

/// A module with a file of its own.
pub(crate) struct Module {
    pub(crate) items: Vec<Item>,
}

/// All modules of a crate.
#[derive(Default)]
pub(crate) struct Modules {
    pub(crate) by_path: BTreeMap<ModulePath, Module>,
    /// Inline modules (`mod name { … }`), with the module whose file holds them.
    pub(crate) inline: BTreeMap<ModulePath, ModulePath>,
}

impl Modules {
    /// Reads the crate whose root is the file `root` (`lib.rs`, `main.rs`).
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut modules = Self::default();
        let folder = root.parent().context("a crate's root lies in a folder")?;
        modules.add_file(Vec::new(), root, folder)?;
        Ok(modules)
    }

    /// Returns true if `path` is a module of this crate.
    pub(crate) fn contains(&self, path: &[String]) -> bool {
        self.by_path.contains_key(path) || self.inline.contains_key(path)
    }

    /// The module with a file that `path` is in.
    pub(crate) fn file_module<'a>(&'a self, path: &'a [String]) -> &'a [String] {
        self.inline.get(path).map_or(path, Vec::as_slice)
    }

    /// `folder`: where the files of the module's children are.
    fn add_file(&mut self, path: ModulePath, file: &Path, folder: &Path) -> Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("{}", file.display()))?;
        if is_test_only(&parsed.attrs) {
            return Ok(());
        }
        self.add_children(&path, &path, &parsed.items, folder)?;
        self.by_path.insert(path, Module { items: parsed.items });
        Ok(())
    }

    fn add_children(
        &mut self,
        path: &[String],
        file_module: &[String],
        items: &[Item],
        folder: &Path,
    ) -> Result<()> {
        for item in items {
            let Item::Mod(module) = item else { continue };
            if is_test_only(&module.attrs) {
                continue;
            }
            let name = module.ident.to_string();
            let child: ModulePath = path.iter().cloned().chain([name.clone()]).collect();
            let folder = folder.join(&name);
            if let Some((_, items)) = &module.content {
                self.inline.insert(child.clone(), file_module.to_vec());
                self.add_children(&child, file_module, items, &folder)?;
                continue;
            }
            if module.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
                bail!("mod {name} in {} has a #[path]", folder.display());
            }
            let candidates = [folder.with_extension("rs"), folder.join("mod.rs")];
            let file = candidates.iter().find(|file| file.is_file());
            let file = file.with_context(|| format!("no file for {}", child.join("::")))?;
            self.add_file(child, file, &folder)?;
        }
        Ok(())
    }
}

/// Returns true if an item with these attributes is compiled only for tests or fuzzing.
pub(crate) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("cfg")
            && list.parse_args::<Meta>().is_ok_and(|meta| in_production(&meta) == Some(false))
    })
}

/// Value of a `cfg` predicate in a production build; none if it depends on the platform.
fn in_production(predicate: &Meta) -> Option<bool> {
    match predicate {
        Meta::Path(path) if path.is_ident("test") || path.is_ident("fuzzing") => Some(false),
        Meta::NameValue(pair) if pair.path.is_ident("feature") => {
            let is_testing = matches!(&pair.value, syn::Expr::Lit(literal)
                if matches!(&literal.lit, syn::Lit::Str(name) if name.value() == "testing"));
            is_testing.then_some(false)
        }
        Meta::List(list) => {
            let parts = Punctuated::<Meta, Token![,]>::parse_terminated;
            let parts: Vec<_> =
                list.parse_args_with(parts).ok()?.iter().map(in_production).collect();
            if list.path.is_ident("not") {
                return parts.first().copied().flatten().map(|value| !value);
            }
            let decisive = list.path.is_ident("any");
            if parts.contains(&Some(decisive)) {
                Some(decisive)
            } else if parts.contains(&None) {
                None
            } else {
                Some(!decisive)
            }
        }
        Meta::Path(_) | Meta::NameValue(_) => None,
    }
}
