//! Names and types, as far as they can be told without a compiler: what a path means where it stands, and of which type an
//! expression is. What is not certain is unknown.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Block, Expr, ExprMethodCall, GenericArgument, Ident, Member, Pat, PathArguments, Type};

use crate::crates::{Index, Kind, begin};
use crate::names::{any, parts, plain, usual};
use crate::rules::{ACTIVITY, UNORDERED, WORKFLOW, is_spoken_of};

/// How far types lead to types.
const DEEPEST: usize = 12;

/// Names that were looked for and the scopes in which they were, so that nobody goes round in circles.
type Seen = BTreeSet<(usize, String)>;

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Something in this scope: its name, and what is named in it.
    Here(usize, Vec<String>),
    /// Something of another crate, by its whole path.
    Outside(Vec<String>),
}

/// A type.
#[derive(Clone)]
pub(crate) enum Ty {
    /// One with a name, the arguments as written, and where they are.
    Named(Target, Vec<Type>, usize),
    Tuple(Vec<Option<Ty>>),
    /// Some of the same.
    Many(Option<Box<Ty>>),
}

/// Types around a type, through which one sees it.
const TRANSPARENT: &[&str] =
    &["Arc", "Rc", "Box", "Ref", "RefMut", "MutexGuard", "RwLockReadGuard", "RwLockWriteGuard", "Cow", "Pin"];
/// Types that give out what they guard.
const GUARDS: &[&str] = &["Mutex", "RwLock", "RefCell"];
/// Types that hold one, or an error or nothing.
const PERHAPS: &[&str] = &["Option", "Result"];
const LISTS: &[&str] = &["Vec", "VecDeque", "BTreeSet", "HashSet", "LinkedList"];

/// Methods that give what they are called on, as far as its type goes.
const SAME: &[&str] = &[
    "clone",
    "to_owned",
    "as_ref",
    "as_mut",
    "as_deref",
    "borrow",
    "borrow_mut",
    "by_ref",
    "iter",
    "iter_mut",
    "into_iter",
];
/// Methods that take what is there.
const TAKEN_OUT: &[&str] =
    &["unwrap", "expect", "unwrap_or_default", "unwrap_or", "unwrap_or_else", "lock", "read", "write", "ok", "or_fail"];

impl<'a> Index<'a> {
    /// What this path means in this scope.
    pub(crate) fn resolve(&self, scope: usize, path: &[String]) -> Target {
        self.find(scope, path, &mut Seen::new()).unwrap_or_else(|| Target::Outside(usual(path.to_vec())))
    }

    fn find(&self, scope: usize, path: &[String], seen: &mut Seen) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let mut module = scope;
        while !self.scopes[module].is_module {
            module = self.scopes[module].parent?;
        }
        match first.as_str() {
            "crate" => return self.inside(0, rest, seen),
            "self" if !rest.is_empty() => return self.inside(module, rest, seen),
            "super" => {
                // From the parent on, further `super`s go on from there.
                let parent = self.scopes[module].parent?;
                let again: Vec<String> = std::iter::once("self".to_owned()).chain(rest.iter().cloned()).collect();
                let path = if rest.first().is_some_and(|next| next == "super") { rest } else { &again };
                return self.find(parent, path, seen);
            }
            _ => {}
        }
        let mut at = scope;
        loop {
            if let Some(target) = self.inside(at, path, seen) {
                return Some(target);
            }
            if self.scopes[at].is_module {
                return None;
            }
            at = self.scopes[at].parent?;
        }
    }

    /// What this path means as seen in this scope and nowhere else.
    fn inside(&self, scope: usize, path: &[String], seen: &mut Seen) -> Option<Target> {
        let (name, rest) = path.split_first()?;
        if !seen.insert((scope, name.clone())) {
            return None;
        }
        let here = &self.scopes[scope];
        if let Some(module) = here.modules.get(name)
            && !rest.is_empty()
        {
            return self.inside(*module, rest, seen);
        }
        if here.functions.contains_key(name) || here.statics.contains_key(name) {
            return Some(Target::Here(scope, path.to_vec()));
        }
        match here.types.get(name) {
            Some(Kind::Alias(Type::Path(alias))) if alias.qself.is_none() && !rest.is_empty() => {
                let path: Vec<String> = parts(&alias.path).into_iter().chain(rest.iter().cloned()).collect();
                return Some(self.find(scope, &path, seen).unwrap_or(Target::Outside(usual(path))));
            }
            Some(_) => return Some(Target::Here(scope, path.to_vec())),
            None => {}
        }
        if let Some(import) = here.imports.get(name) {
            let path: Vec<String> = import.iter().chain(rest).cloned().collect();
            // In `use nanoid::nanoid` the first name is a crate's, or a module's, and not what is imported.
            let target = match here.modules.get(name) {
                _ if import.first() != Some(name) => self.find(scope, &path, seen),
                Some(module) => self.inside(*module, &path[1..], seen),
                None => None,
            };
            return Some(target.unwrap_or(Target::Outside(usual(path))));
        }
        here.globs.iter().find_map(|glob| self.through(scope, glob, path, seen))
    }

    /// What comes by `use glob::*`.
    fn through(&self, scope: usize, glob: &[String], path: &[String], seen: &mut Seen) -> Option<Target> {
        let whole: Vec<String> = glob.iter().chain(path).cloned().collect();
        // A glob does not look into itself.
        let starts_here = self.scopes[scope].modules.contains_key(&glob[0])
            || self.scopes[scope].imports.contains_key(&glob[0])
            || ["crate", "self", "super"].contains(&glob[0].as_str());
        if starts_here {
            return self.find(scope, &whole, seen);
        }
        let whole = usual(whole);
        is_spoken_of(&whole[..=glob.len()]).then_some(Target::Outside(whole))
    }

    /// A type as it is written in this scope; `owner` is what `Self` means.
    pub(crate) fn ty(&self, written: &Type, scope: usize, owner: Option<&Type>) -> Option<Ty> {
        self.ty_within(written, scope, owner, 0)
    }

    fn ty_within(&self, written: &Type, scope: usize, owner: Option<&Type>, depth: usize) -> Option<Ty> {
        if depth > DEEPEST {
            return None;
        }
        let deeper = |inner: &Type, scope, owner| self.ty_within(inner, scope, owner, depth + 1);
        match written {
            Type::Reference(reference) => deeper(&reference.elem, scope, owner),
            Type::Paren(paren) => deeper(&paren.elem, scope, owner),
            Type::Group(group) => deeper(&group.elem, scope, owner),
            Type::Tuple(tuple) => Some(Ty::Tuple(tuple.elems.iter().map(|one| deeper(one, scope, owner)).collect())),
            Type::Slice(slice) => Some(Ty::Many(deeper(&slice.elem, scope, owner).map(Box::new))),
            Type::Array(array) => Some(Ty::Many(deeper(&array.elem, scope, owner).map(Box::new))),
            Type::Path(path) if path.qself.is_none() => {
                if path.path.is_ident("Self") {
                    return owner.and_then(|owner| deeper(owner, scope, None));
                }
                let target = self.resolve(scope, &parts(&path.path));
                let arguments = arguments(&path.path.segments.last()?.arguments);
                if let Target::Here(at, names) = &target
                    && let [name] = names.as_slice()
                    && let Some(Kind::Alias(alias)) = self.scopes[*at].types.get(name)
                {
                    return deeper(alias, *at, None);
                }
                if let (Target::Outside(names), Some(inner)) = (&target, arguments.first()) {
                    let name = names.last().map_or("", String::as_str);
                    if TRANSPARENT.contains(&name) {
                        return deeper(inner, scope, owner);
                    }
                }
                Some(Ty::Named(target, arguments, scope))
            }
            _ => None,
        }
    }

    /// Whether it is one of these, or, of a tuple, has one.
    pub(crate) fn is(&self, ty: &Ty, patterns: &[&str]) -> bool {
        match ty {
            Ty::Named(Target::Outside(path), ..) => any(patterns, path),
            Ty::Tuple(parts) => parts.iter().flatten().any(|part| self.is(part, patterns)),
            _ => false,
        }
    }

    pub(crate) fn is_workflow(&self, ty: &Ty) -> bool {
        self.is(ty, WORKFLOW)
    }

    pub(crate) fn is_activity(&self, ty: &Ty) -> bool {
        self.is(ty, ACTIVITY)
    }

    /// Whether its order differs from process to process. A hasher of one's own may be the same everywhere.
    pub(crate) fn is_unordered(&self, ty: &Ty) -> bool {
        let Ty::Named(Target::Outside(path), arguments, _) = ty else { return false };
        let own_hasher = if path.last().is_some_and(|name| name.ends_with("Set")) { 2 } else { 3 };
        any(UNORDERED, path) && arguments.len() < own_hasher
    }

    /// The name and the scope of a type of this crate.
    pub(crate) fn own_type(&self, ty: &Ty) -> Option<(usize, String)> {
        match ty {
            Ty::Named(Target::Here(scope, path), ..) => Some((*scope, path.first()?.clone())),
            _ => None,
        }
    }

    /// A field's type.
    pub(crate) fn field(&self, of: &Ty, member: &Member) -> Option<Ty> {
        if let (Ty::Tuple(parts), Member::Unnamed(index)) = (of, member) {
            return parts.get(index.index as usize)?.clone();
        }
        let (scope, name) = self.own_type(of)?;
        let Some(Kind::Struct(fields)) = self.scopes[scope].types.get(&name) else { return None };
        let field = fields.iter().enumerate().find(|(index, field)| match member {
            Member::Named(name) => field.ident.as_ref() == Some(name),
            Member::Unnamed(at) => *index == at.index as usize,
        });
        self.ty(&field?.1.ty, scope, None)
    }

    /// What an option or a result holds, or what a guard guards.
    fn taken_out(&self, ty: Ty) -> Option<Ty> {
        let Ty::Named(Target::Outside(path), arguments, scope) = &ty else { return Some(ty) };
        let name = path.last()?.as_str();
        if PERHAPS.contains(&name) || GUARDS.contains(&name) {
            return self.ty(arguments.first()?, *scope, None);
        }
        Some(ty)
    }

    /// What there are many of.
    pub(crate) fn each(&self, ty: &Ty) -> Option<Ty> {
        match ty {
            Ty::Many(each) => each.as_deref().cloned(),
            Ty::Named(Target::Outside(path), arguments, scope) if LISTS.contains(&path.last()?.as_str()) => {
                self.ty(arguments.first()?, *scope, None)
            }
            _ => None,
        }
    }

    /// The function that this path names, if it is the crate's own.
    pub(crate) fn own_function(&self, target: &Target) -> Option<usize> {
        let Target::Here(scope, path) = target else { return None };
        match path.as_slice() {
            [name] => self.scopes[*scope].functions.get(name).copied(),
            [owner, name] => self.method(&(*scope, owner.clone()), name),
            _ => None,
        }
    }

    /// The method of this name that this type has itself.
    pub(crate) fn method(&self, owner: &(usize, String), name: &str) -> Option<usize> {
        let named = self.methods.get(name)?;
        let of_it = |function: &&usize| {
            let function = &self.functions[**function];
            let ty = function.owner.and_then(|owner| self.ty(owner, function.scope, None));
            ty.and_then(|ty| self.own_type(&ty)).as_ref() == Some(owner)
        };
        named.iter().find(of_it).copied()
    }
}

/// The types among generic arguments.
fn arguments(arguments: &PathArguments) -> Vec<Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return Vec::new() };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    });
    types.collect()
}

/// The variables that code sees, and what they are.
pub(crate) struct Variables<'k, 'a> {
    index: &'k Index<'a>,
    file: usize,
    scope: usize,
    owner: Option<&'a Type>,
    frames: Vec<BTreeMap<String, Option<Ty>>>,
}

impl<'k, 'a> Variables<'k, 'a> {
    /// Those of a function: its arguments.
    pub(crate) fn of(index: &'k Index<'a>, function: usize) -> Self {
        let function = &index.functions[function];
        let (scope, owner) = (function.scope, function.owner);
        let mut variables = Self { index, file: function.file, scope, owner, frames: vec![BTreeMap::new()] };
        if function.takes_self {
            let ty = owner.and_then(|owner| index.ty(owner, scope, None));
            variables.frames[0].insert("self".to_owned(), ty);
        }
        for (pattern, ty) in &function.arguments {
            let ty = ty.and_then(|ty| index.ty(ty, scope, owner));
            variables.bind(pattern, ty);
        }
        variables
    }

    pub(crate) fn enter(&mut self) {
        self.frames.push(BTreeMap::new());
    }

    pub(crate) fn leave(&mut self) {
        self.frames.pop();
    }

    /// Goes into the scope of a block's own items, if it has any, and gives the one around it.
    pub(crate) fn enter_block(&mut self, block: &Block) -> usize {
        let around = self.scope;
        self.scope = self.index.blocks.get(&(self.file, begin(block))).copied().unwrap_or(around);
        self.enter();
        around
    }

    pub(crate) fn leave_block(&mut self, around: usize) {
        self.leave();
        self.scope = around;
    }

    /// Whether a variable has this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.contains_key(name))
    }

    /// The names by which the workflow's context is known.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &str> {
        let all = self.frames.iter().flatten();
        let contexts = all.filter(|(_, ty)| ty.as_ref().is_some_and(|ty| self.index.is_workflow(ty)));
        contexts.map(|(name, _)| name.as_str())
    }

    /// What a path means here.
    pub(crate) fn resolve(&self, path: &syn::Path) -> Target {
        let mut names = parts(path);
        if path.leading_colon.is_some() {
            return Target::Outside(usual(names));
        }
        if names[0] == "Self"
            && let Some(Type::Path(owner)) = self.owner
        {
            names.splice(..1, parts(&owner.path));
        }
        self.index.resolve(self.scope, &names)
    }

    /// A type as it is written here.
    pub(crate) fn ty(&self, written: &Type) -> Option<Ty> {
        self.index.ty(written, self.scope, self.owner)
    }

    /// A variable of this name, of which nothing else is known.
    pub(crate) fn hide(&mut self, name: &Ident) {
        self.name(name, None);
    }

    fn name(&mut self, name: &Ident, ty: Option<Ty>) {
        self.frames.last_mut().expect("there is a frame").insert(plain(name), ty);
    }

    /// Makes a pattern's names known.
    pub(crate) fn bind(&mut self, pattern: &Pat, ty: Option<Ty>) {
        match pattern {
            Pat::Ident(name) => {
                self.name(&name.ident, ty.clone());
                if let Some((_, pattern)) = &name.subpat {
                    self.bind(pattern, ty);
                }
            }
            Pat::Type(typed) => {
                let ty = self.ty(&typed.ty).or(ty);
                self.bind(&typed.pat, ty);
            }
            Pat::Reference(reference) => self.bind(&reference.pat, ty),
            Pat::Paren(paren) => self.bind(&paren.pat, ty),
            Pat::Tuple(tuple) => {
                for (index, part) in tuple.elems.iter().enumerate() {
                    let ty = ty.as_ref().and_then(|ty| self.index.field(ty, &Member::from(index)));
                    self.bind(part, ty);
                }
            }
            Pat::Struct(fields) => {
                for field in &fields.fields {
                    let ty = ty.as_ref().and_then(|ty| self.index.field(ty, &field.member));
                    self.bind(&field.pat, ty);
                }
            }
            Pat::TupleStruct(pattern) => {
                let last = pattern.path.segments.last().map(|segment| segment.ident.to_string());
                let holds = matches!(last.as_deref(), Some("Some" | "Ok"));
                let inner = if holds { ty.and_then(|ty| self.index.taken_out(ty)) } else { None };
                pattern.elems.iter().for_each(|part| self.bind(part, inner.clone()));
            }
            Pat::Slice(slice) => {
                let each = ty.and_then(|ty| self.index.each(&ty));
                slice.elems.iter().for_each(|part| self.bind(part, each.clone()));
            }
            Pat::Or(either) => either.cases.iter().for_each(|case| self.bind(case, ty.clone())),
            _ => {}
        }
    }

    /// What this is, if that can be told.
    pub(crate) fn of_expr(&self, expr: &Expr) -> Option<Ty> {
        match expr {
            Expr::Path(path) => self.of_path(&path.path),
            Expr::Reference(inner) => self.of_expr(&inner.expr),
            Expr::Paren(inner) => self.of_expr(&inner.expr),
            Expr::Group(inner) => self.of_expr(&inner.expr),
            Expr::Unary(inner) if matches!(inner.op, syn::UnOp::Deref(_)) => self.of_expr(&inner.expr),
            Expr::Field(field) => self.index.field(&self.of_expr(&field.base)?, &field.member),
            Expr::Try(inner) => self.index.taken_out(self.of_expr(&inner.expr)?),
            Expr::Await(inner) => self.recorded(&inner.base).or_else(|| self.of_expr(&inner.base)),
            Expr::Struct(made) => Some(Ty::Named(self.resolve(&made.path), Vec::new(), self.scope)),
            Expr::Tuple(tuple) => Some(Ty::Tuple(tuple.elems.iter().map(|part| self.of_expr(part)).collect())),
            Expr::Array(array) => {
                Some(Ty::Many(array.elems.first().and_then(|first| self.of_expr(first)).map(Box::new)))
            }
            Expr::Cast(cast) => self.ty(&cast.ty),
            Expr::Call(call) => match &*call.func {
                Expr::Path(path) => self.of_call(&path.path),
                _ => None,
            },
            Expr::MethodCall(call) => self.of_method(call),
            _ => None,
        }
    }

    fn of_path(&self, path: &syn::Path) -> Option<Ty> {
        if let Some(name) = path.get_ident() {
            let name = plain(name);
            if let Some(frame) = self.frames.iter().rev().find(|frame| frame.contains_key(&name)) {
                return frame[&name].clone();
            }
        }
        match self.resolve(path) {
            Target::Here(scope, names)
                if names.len() == 1 && self.index.scopes[scope].types.contains_key(&names[0]) =>
            {
                Some(Ty::Named(Target::Here(scope, names), Vec::new(), self.scope))
            }
            _ => None,
        }
    }

    /// Of `HashMap::new()`, `Order::example()`, `load(..)`.
    fn of_call(&self, path: &syn::Path) -> Option<Ty> {
        let target = self.resolve(path);
        if let Some(function) = self.index.own_function(&target) {
            let function = &self.index.functions[function];
            return self.index.ty(function.gives?, function.scope, function.owner);
        }
        let is_type = |name: &String| name.starts_with(|first: char| first.is_ascii_uppercase());
        match target {
            Target::Outside(mut names) if names.len() > 1 => {
                names.pop();
                let named = names.last().is_some_and(is_type);
                let transparent = names.last().is_some_and(|name| TRANSPARENT.contains(&name.as_str()));
                (named && !transparent).then(|| Ty::Named(Target::Outside(names), Vec::new(), self.scope))
            }
            Target::Here(scope, names) if names.len() == 1 && is_type(&names[0]) => {
                Some(Ty::Named(Target::Here(scope, names), Vec::new(), self.scope))
            }
            _ => None,
        }
    }

    fn of_method(&self, call: &ExprMethodCall) -> Option<Ty> {
        let name = call.method.to_string();
        if name == "collect" {
            let turbofish = call.turbofish.as_ref()?;
            let written = turbofish.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            });
            return self.ty(written?);
        }
        let on = self.of_expr(&call.receiver)?;
        if let Some(function) = self.index.own_type(&on).and_then(|owner| self.index.method(&owner, &name)) {
            let function = &self.index.functions[function];
            return self.index.ty(function.gives?, function.scope, function.owner);
        }
        if SAME.contains(&name.as_str()) {
            return Some(on);
        }
        if TAKEN_OUT.contains(&name.as_str()) { self.index.taken_out(on) } else { None }
    }

    /// What `cx.activity(load, &order).options(..)` comes to: what the function gives.
    fn recorded(&self, awaited: &Expr) -> Option<Ty> {
        let Expr::MethodCall(call) = awaited else { return None };
        let is_call = call.method == "activity" || call.method == "local_activity";
        if !is_call {
            return self.recorded(&call.receiver);
        }
        let Some(Expr::Path(path)) = call.args.first() else { return None };
        let function = &self.index.functions[self.index.own_function(&self.resolve(&path.path))?];
        self.index.ty(function.gives?, function.scope, function.owner)
    }
}
