//! What a crate has: its modules, functions, types and statics, each under the name by which code may call it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use proc_macro2::{LineColumn, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Expr, ExprClosure, Fields, FnArg, Ident, ImplItem, Item, ItemImpl, ItemStatic, Macro, Meta, Pat,
    ReturnType, Signature, Stmt, TraitItem, Type, UseTree,
};

use crate::names::{any, plain};
use crate::rules::{LAZY, MUTABLE_INSIDE};
use crate::sources::{Source, Tests};

/// A module, or a block with items of its own.
#[derive(Default)]
pub(crate) struct Scope<'a> {
    /// What it stands in.
    pub(crate) parent: Option<usize>,
    pub(crate) is_module: bool,
    pub(crate) modules: BTreeMap<String, usize>,
    pub(crate) functions: BTreeMap<String, usize>,
    pub(crate) types: BTreeMap<String, Kind<'a>>,
    pub(crate) statics: BTreeMap<String, Static>,
    pub(crate) imports: BTreeMap<String, Vec<String>>,
    pub(crate) globs: Vec<Vec<String>>,
    /// Modules that only tests have.
    left: BTreeSet<String>,
}

/// A type, as far as it matters.
#[derive(Clone, Copy)]
pub(crate) enum Kind<'a> {
    Struct(&'a Fields),
    Alias(&'a Type),
    Other,
}

/// A static item.
#[derive(Default)]
pub(crate) struct Static {
    /// What in it may change.
    pub(crate) changes: Option<String>,
    /// What makes its value, at the first access.
    pub(crate) made_by: Option<usize>,
}

/// What runs.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    Block(&'a Block),
    Expr(&'a Expr),
}

/// What closures are called.
pub(crate) const CLOSURE: &str = "a closure";

/// A function, a method, a closure that says what it takes, or what makes a static's value.
pub(crate) struct Function<'a> {
    pub(crate) name: String,
    pub(crate) file: usize,
    pub(crate) line: usize,
    /// The scope that it stands in.
    pub(crate) scope: usize,
    /// Whose method it is.
    pub(crate) owner: Option<&'a Type>,
    pub(crate) takes_self: bool,
    pub(crate) arguments: Vec<(&'a Pat, Option<&'a Type>)>,
    pub(crate) gives: Option<&'a Type>,
    pub(crate) body: Body<'a>,
}

/// A crate. The first scope is its root.
pub(crate) struct Index<'a> {
    pub(crate) scopes: Vec<Scope<'a>>,
    pub(crate) functions: Vec<Function<'a>>,
    /// Blocks with items of their own, by where they begin: the scopes of these.
    pub(crate) blocks: BTreeMap<(usize, LineColumn), usize>,
    /// Methods, by their names.
    pub(crate) methods: BTreeMap<String, Vec<usize>>,
    /// The files' names.
    pub(crate) files: Vec<String>,
    /// Lines of each file that were left alone.
    pub(crate) skipped: Vec<Vec<RangeInclusive<usize>>>,
    tests: Tests,
}

/// Looks through all files of a crate.
pub(crate) fn index(sources: &[Source], tests: Tests) -> Index<'_> {
    let mut index = Index {
        scopes: Vec::new(),
        functions: Vec::new(),
        blocks: BTreeMap::new(),
        methods: BTreeMap::new(),
        files: sources.iter().map(|source| source.name.clone()).collect(),
        skipped: vec![Vec::new(); sources.len()],
        tests,
    };
    index.scope(None, true);
    let mut next = vec![(0, Some(0))];
    while let Some((file, scope)) = next.pop() {
        match scope {
            Some(scope) => index.items(sources[file].code.items.iter(), file, scope),
            None => index.skipped[file].push(0..=usize::MAX),
        }
        for (path, other) in &sources[file].modules {
            let inside = scope.and_then(|scope| index.module(scope, path));
            next.push((*other, inside));
        }
    }
    index
}

impl<'a> Index<'a> {
    fn scope(&mut self, parent: Option<usize>, is_module: bool) -> usize {
        self.scopes.push(Scope { parent, is_module, ..Scope::default() });
        self.scopes.len() - 1
    }

    /// The scope of a module in a file of its own, unless it is left alone, or what it stands in.
    fn module(&mut self, from: usize, path: &[String]) -> Option<usize> {
        let (name, within) = path.split_last()?;
        let within = within.iter().try_fold(from, |at, name| self.scopes[at].modules.get(name).copied())?;
        if self.scopes[within].left.contains(name) {
            return None;
        }
        let scope = self.scope(Some(within), true);
        self.scopes[within].modules.insert(name.clone(), scope);
        Some(scope)
    }

    fn items(&mut self, items: impl Iterator<Item = &'a Item>, file: usize, scope: usize) {
        for item in items {
            if self.leaves(attributes(item), item, file) {
                if let Item::Mod(module) = item {
                    self.scopes[scope].left.insert(plain(&module.ident));
                }
                continue;
            }
            match item {
                Item::Fn(function) => {
                    let new = self.function(&function.sig, None, Body::Block(&function.block), file, scope);
                    self.scopes[scope].functions.insert(plain(&function.sig.ident), new);
                }
                Item::Impl(block) => self.methods_of(block, file, scope),
                Item::Trait(item) => {
                    self.scopes[scope].types.insert(plain(&item.ident), Kind::Other);
                    for item in &item.items {
                        if let TraitItem::Fn(method) = item
                            && let Some(body) = &method.default
                        {
                            self.add_method(&method.sig, None, body, file, scope);
                        }
                    }
                }
                Item::Mod(module) => {
                    if let Some((_, items)) = &module.content {
                        let inside = self.scope(Some(scope), true);
                        self.scopes[scope].modules.insert(plain(&module.ident), inside);
                        self.items(items.iter(), file, inside);
                    }
                }
                Item::Use(item) => self.imports(&item.tree, Vec::new(), scope),
                Item::Struct(item) => self.kind(&item.ident, Kind::Struct(&item.fields), scope),
                Item::Enum(item) => self.kind(&item.ident, Kind::Other, scope),
                Item::Union(item) => self.kind(&item.ident, Kind::Other, scope),
                Item::Type(item) => self.kind(&item.ident, Kind::Alias(&item.ty), scope),
                Item::Static(item) => self.static_item(item, file, scope),
                Item::Macro(item) => self.statics_of(&item.mac, scope),
                _ => {}
            }
        }
    }

    /// Whether this is tests' code, which is not wanted. Remembers its lines.
    fn leaves(&mut self, attributes: &[Attribute], item: &impl Spanned, file: usize) -> bool {
        let leaves = self.tests == Tests::Left && attributes.iter().any(is_for_tests);
        if leaves {
            let span = item.span();
            self.skipped[file].push(span.start().line..=span.end().line);
        }
        leaves
    }

    fn kind(&mut self, name: &Ident, kind: Kind<'a>, scope: usize) {
        self.scopes[scope].types.insert(plain(name), kind);
    }

    fn methods_of(&mut self, block: &'a ItemImpl, file: usize, scope: usize) {
        for item in &block.items {
            if let ImplItem::Fn(method) = item
                && !self.leaves(&method.attrs, method, file)
            {
                self.add_method(&method.sig, Some(&block.self_ty), &method.block, file, scope);
            }
        }
    }

    fn add_method(
        &mut self,
        signature: &'a Signature,
        owner: Option<&'a Type>,
        body: &'a Block,
        file: usize,
        scope: usize,
    ) {
        let new = self.function(signature, owner, Body::Block(body), file, scope);
        self.methods.entry(plain(&signature.ident)).or_default().push(new);
    }

    fn function(
        &mut self,
        signature: &'a Signature,
        owner: Option<&'a Type>,
        body: Body<'a>,
        file: usize,
        scope: usize,
    ) -> usize {
        let arguments = signature.inputs.iter().filter_map(|argument| match argument {
            FnArg::Typed(argument) => Some((&*argument.pat, Some(&*argument.ty))),
            FnArg::Receiver(_) => None,
        });
        self.of_body(body, file, scope);
        self.functions.push(Function {
            name: plain(&signature.ident),
            file,
            line: signature.ident.span().start().line,
            scope,
            owner,
            takes_self: signature.receiver().is_some(),
            arguments: arguments.collect(),
            gives: given(&signature.output),
            body,
        });
        self.functions.len() - 1
    }

    /// Looks for what stands in a body: items of its own, and closures that say what they take.
    fn of_body(&mut self, body: Body<'a>, file: usize, scope: usize) {
        let mut nested = Nested { index: self, file, scope };
        match body {
            Body::Block(block) => nested.visit_block(block),
            Body::Expr(expr) => nested.visit_expr(expr),
        }
    }

    fn imports(&mut self, tree: &UseTree, mut before: Vec<String>, scope: usize) {
        match tree {
            UseTree::Path(path) => {
                before.push(plain(&path.ident));
                self.imports(&path.tree, before, scope);
            }
            UseTree::Name(name) if name.ident == "self" => {
                if let Some(name) = before.last().cloned() {
                    self.scopes[scope].imports.insert(name, before);
                }
            }
            UseTree::Name(name) => {
                before.push(plain(&name.ident));
                self.scopes[scope].imports.insert(plain(&name.ident), before);
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    before.push(plain(&rename.ident));
                }
                self.scopes[scope].imports.insert(plain(&rename.rename), before);
            }
            UseTree::Glob(_) => self.scopes[scope].globs.push(before),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.imports(tree, before.clone(), scope));
            }
        }
    }

    fn static_item(&mut self, item: &'a ItemStatic, file: usize, scope: usize) {
        let mut idents = Idents::default();
        idents.visit_type(&item.ty);
        let is_mutable = matches!(item.mutability, syn::StaticMutability::Mut(_));
        let changes = if is_mutable { Some("static mut".to_owned()) } else { mutable(idents.0.iter()) };
        let lazy = idents.0.iter().any(|name| LAZY.contains(&name.as_str()));
        // What makes a lazy value runs in the code that asks first.
        let made_by = (lazy && changes.is_none()).then(|| {
            let body = Body::Expr(&item.expr);
            self.of_body(body, file, scope);
            self.functions.push(Function {
                name: plain(&item.ident),
                file,
                line: item.ident.span().start().line,
                scope,
                owner: None,
                takes_self: false,
                arguments: Vec::new(),
                gives: None,
                body,
            });
            self.functions.len() - 1
        });
        self.scopes[scope].statics.insert(plain(&item.ident), Static { changes, made_by });
    }

    /// Statics that `thread_local!` and `lazy_static!` make.
    fn statics_of(&mut self, invocation: &Macro, scope: usize) {
        let Some(name) = invocation.path.segments.last().map(|segment| segment.ident.to_string()) else { return };
        if name != "thread_local" && name != "lazy_static" {
            return;
        }
        for (ident, before_value) in declared(invocation.tokens.clone()) {
            let changes =
                if name == "thread_local" { Some("thread_local!".to_owned()) } else { mutable(before_value.iter()) };
            self.scopes[scope].statics.insert(ident, Static { changes, made_by: None });
        }
    }
}

/// Names that follow the word `static`, each with all names up to its value.
fn declared(tokens: TokenStream) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let (mut begins, mut in_type) = (false, false);
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "static" => begins = true,
            TokenTree::Ident(ident) if ident == "ref" => {}
            TokenTree::Ident(ident) if begins => {
                found.push((plain(&ident), Vec::new()));
                (begins, in_type) = (false, true);
            }
            TokenTree::Ident(ident) if in_type => {
                found.last_mut().into_iter().for_each(|(_, before)| before.push(plain(&ident)));
            }
            TokenTree::Punct(punct) if punct.as_char() == '=' => in_type = false,
            _ => {}
        }
    }
    found
}

/// The first of these names that stands for something that changes.
fn mutable<'n>(mut names: impl Iterator<Item = &'n String>) -> Option<String> {
    names.find(|name| any(MUTABLE_INSIDE, std::slice::from_ref(name))).cloned()
}

fn given(output: &ReturnType) -> Option<&Type> {
    match output {
        ReturnType::Type(_, given) => Some(given),
        ReturnType::Default => None,
    }
}

/// `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
fn is_for_tests(attribute: &Attribute) -> bool {
    let path = attribute.path();
    match &attribute.meta {
        Meta::List(list) if path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test")
        }
        _ => path.segments.last().is_some_and(|segment| segment.ident == "test"),
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Looks through a body, at whatever depth, but not into the functions that stand there.
struct Nested<'i, 'a> {
    index: &'i mut Index<'a>,
    file: usize,
    scope: usize,
}

impl<'a> Visit<'a> for Nested<'_, 'a> {
    fn visit_block(&mut self, block: &'a Block) {
        let around = self.scope;
        if block.stmts.iter().any(|stmt| matches!(stmt, Stmt::Item(_) | Stmt::Macro(_))) {
            self.scope = self.index.scope(Some(around), false);
            self.index.blocks.insert((self.file, begin(block)), self.scope);
        }
        visit::visit_block(self, block);
        self.scope = around;
    }

    fn visit_item(&mut self, item: &'a Item) {
        self.index.items(std::iter::once(item), self.file, self.scope);
    }

    fn visit_macro(&mut self, invocation: &'a Macro) {
        self.index.statics_of(invocation, self.scope);
    }

    fn visit_expr_closure(&mut self, closure: &'a ExprClosure) {
        visit::visit_expr_closure(self, closure);
        let arguments = closure.inputs.iter().map(|argument| match argument {
            Pat::Type(typed) => (&*typed.pat, Some(&*typed.ty)),
            pattern => (pattern, None),
        });
        let arguments: Vec<_> = arguments.collect();
        if arguments.iter().all(|(_, ty)| ty.is_none()) {
            return;
        }
        self.index.functions.push(Function {
            name: CLOSURE.to_owned(),
            file: self.file,
            line: closure.or1_token.span.start().line,
            scope: self.scope,
            owner: None,
            takes_self: false,
            arguments,
            gives: given(&closure.output),
            body: Body::Expr(&closure.body),
        });
    }
}

/// Where a block begins.
pub(crate) fn begin(block: &Block) -> LineColumn {
    block.brace_token.span.open().start()
}

/// The names in a type, the outermost first.
#[derive(Default)]
struct Idents(Vec<String>);

impl Visit<'_> for Idents {
    fn visit_ident(&mut self, ident: &Ident) {
        self.0.push(plain(ident));
    }
}
