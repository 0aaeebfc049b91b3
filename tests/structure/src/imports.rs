//! The paths that a module names: `use` declarations, paths in code, in macros and in attributes.
//! It does not resolve them; [`crate::cycles`] does.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Path, UseTree, Visibility};

use crate::modules::{ModulePath, is_test_only};

/// A path that a module names.
pub(crate) struct Import {
    /// Module that names it, inline modules included.
    pub(crate) at: ModulePath,
    pub(crate) path: Vec<String>,
    pub(crate) kind: Kind,
}

/// Way in which a path is named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Use,
    /// A `use` with a visibility of its own.
    Reexport,
    /// A path in code, in a macro or in an attribute.
    Inline,
}

/// Names that a module has besides its own items.
#[derive(Default)]
pub(crate) struct Scope {
    /// Names brought in by `use`, with the path that each stands for.
    pub(crate) names: BTreeMap<String, Vec<String>>,
    /// Paths of `use path::*`.
    pub(crate) globs: Vec<Vec<String>>,
    /// Names of the module's own items.
    pub(crate) items: BTreeSet<String>,
}

/// The imports of the module at `module`, and the scopes of it and of its inline modules.
pub(crate) fn of(
    module: &ModulePath,
    items: &[Item],
) -> (Vec<Import>, BTreeMap<ModulePath, Scope>) {
    let scopes = BTreeMap::from([(module.clone(), Scope::default())]);
    let mut collector = Collector { at: module.clone(), imports: Vec::new(), scopes };
    for item in items {
        collector.visit_item(item);
    }
    (collector.imports, collector.scopes)
}

struct Collector {
    at: ModulePath,
    imports: Vec<Import>,
    scopes: BTreeMap<ModulePath, Scope>,
}

impl Collector {
    fn scope(&mut self) -> &mut Scope {
        self.scopes.entry(self.at.clone()).or_default()
    }

    fn add(&mut self, path: Vec<String>, kind: Kind) {
        self.imports.push(Import { at: self.at.clone(), path, kind });
    }

    fn add_use(&mut self, prefix: &[String], tree: &UseTree, kind: Kind) {
        let with = |name: &syn::Ident| prefix.iter().cloned().chain([name.to_string()]).collect();
        let (name, path): (_, Vec<String>) = match tree {
            UseTree::Path(path) => {
                let prefix: Vec<String> = with(&path.ident);
                return self.add_use(&prefix, &path.tree, kind);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_use(prefix, tree, kind));
            }
            UseTree::Glob(_) => {
                self.scope().globs.push(prefix.to_vec());
                return self.add(prefix.to_vec(), kind);
            }
            UseTree::Name(name) if name.ident == "self" => {
                (prefix.last().cloned().unwrap_or_default(), prefix.to_vec())
            }
            UseTree::Name(name) => (name.ident.to_string(), with(&name.ident)),
            UseTree::Rename(rename) if rename.ident == "self" => {
                (rename.rename.to_string(), prefix.to_vec())
            }
            UseTree::Rename(rename) => (rename.rename.to_string(), with(&rename.ident)),
        };
        if name != "_" {
            self.scope().names.insert(name, path.clone());
        }
        self.add(path, kind);
    }

    /// Paths in a token stream that is not parsed: the arguments of macros and attributes.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) if colons == 2 => path.push(ident.to_string()),
                other => {
                    self.end_of_path(&mut path);
                    match other {
                        TokenTree::Ident(ident) => path = vec![ident.to_string()],
                        TokenTree::Group(group) => self.scan(group.stream()),
                        TokenTree::Literal(literal) => self.scan_literal(&literal.to_string()),
                        TokenTree::Punct(_) => {}
                    }
                }
            }
            colons = 0;
        }
        self.end_of_path(&mut path);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.add(path, Kind::Inline);
        }
    }

    /// A string such as `with = "crate::base64"` in an attribute.
    fn scan_literal(&mut self, literal: &str) {
        let text = literal.trim_matches('"');
        let is_path = ["crate::", "super::", "self::"].iter().any(|start| text.starts_with(start));
        if is_path && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            self.add(text.split("::").map(str::to_owned).collect(), Kind::Inline);
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test_only(attributes(item)) {
            return;
        }
        if let Some(name) = name(item) {
            self.scope().items.insert(name);
        }
        if let Item::Mod(module) = item {
            let Some((_, items)) = &module.content else { return };
            self.at.push(module.ident.to_string());
            self.scope();
            for item in items {
                self.visit_item(item);
            }
            self.at.pop();
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !matches!(item, ImplItem::Fn(function) if is_test_only(&function.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_private = matches!(item.vis, Visibility::Inherited);
        let kind = if is_private { Kind::Use } else { Kind::Reexport };
        self.add_use(&[], &item.tree, kind);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        // A single name is a local item or comes from a `use`.
        if names.len() > 1 {
            self.add(names, Kind::Inline);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.scan(called.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.scan(list.tokens.clone());
        }
    }

    // `pub(in path)` names an ancestor, but imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
