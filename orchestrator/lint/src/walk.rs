//! One function's code, looked through: what it does that it must not, and which functions of the crate it calls.

use std::collections::BTreeSet;

use proc_macro2::{LineColumn, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Arm, Attribute, Block, Expr, ExprAwait, ExprClosure, ExprForLoop, ExprIf, ExprLet, ExprMatch, ExprMethodCall,
    ExprPath, ExprWhile, GenericArgument, Ident, Item, Local, Macro, Pat, PathArguments, Stmt, Type,
};

use crate::crates::{Body, Index};
use crate::macros::pieces;
use crate::names::{any, plain};
use crate::rules::{
    COLLECTED_ALIKE, COMMON_METHODS, FOREIGN, HARMLESS_BETWEEN, IN_ITS_ORDER, ORDER_FREE, Rule, of_macro, of_method,
    of_path,
};
use crate::types::{Target, Ty, Variables};

/// Something that workflow code may not do, and where.
pub(crate) struct Hit {
    pub(crate) at: LineColumn,
    pub(crate) rule: &'static Rule,
    pub(crate) what: String,
}

/// What was found in a function.
pub(crate) struct Walked {
    pub(crate) hits: Vec<Hit>,
    pub(crate) calls: Vec<usize>,
}

/// Looks through a function.
pub(crate) fn walk(index: &Index<'_>, function: usize) -> Walked {
    let walked = Walked { hits: Vec::new(), calls: Vec::new() };
    let mut walk = Walk { index, variables: Variables::of(index, function), walked, in_any_order: BTreeSet::new() };
    match index.functions[function].body {
        Body::Block(block) => walk.visit_block(block),
        Body::Expr(expr) => walk.visit_expr(expr),
    }
    walk.walked
}

struct Walk<'k, 'a> {
    index: &'k Index<'a>,
    variables: Variables<'k, 'a>,
    walked: Walked,
    /// Where something is gone through, and its order makes no difference.
    in_any_order: BTreeSet<(usize, usize)>,
}

fn place(of: &impl Spanned) -> LineColumn {
    of.span().start()
}

impl Walk<'_, '_> {
    fn hit(&mut self, at: LineColumn, rule: &'static Rule, what: String) {
        self.walked.hits.push(Hit { at, rule, what });
    }

    /// A function, a static or something of another crate is named.
    fn named(&mut self, path: &syn::Path) {
        if path.get_ident().is_some_and(|name| self.variables.has(&plain(name))) {
            return;
        }
        let target = self.variables.resolve(path);
        if let Some(function) = self.index.own_function(&target) {
            return self.walked.calls.push(function);
        }
        match target {
            Target::Outside(names) => {
                if let Some(rule) = of_path(&names) {
                    self.hit(place(path), rule, format!("`{}`", names.join("::")));
                }
            }
            Target::Here(scope, names) => {
                let Some(item) = self.index.scopes[scope].statics.get(&names[0]) else { return };
                self.walked.calls.extend(item.made_by);
                if let Some(changes) = &item.changes {
                    self.hit(
                        place(path),
                        Rule::named("static"),
                        format!("`{}`, a static that may change (`{changes}`)", names[0]),
                    );
                }
            }
        }
    }

    /// Which method of the crate's own is called: the type's, or, where that is not known, the only one of this name.
    fn called(&mut self, on: Option<&Ty>, method: &str) {
        let owner = on.and_then(|on| self.index.own_type(on));
        if let Some(function) = owner.as_ref().and_then(|owner| self.index.method(owner, method)) {
            return self.walked.calls.push(function);
        }
        let may_be_any = on.is_none() || owner.is_some();
        if let Some([only]) = self.index.methods.get(method).map(Vec::as_slice)
            && may_be_any
            && !COMMON_METHODS.contains(&method)
        {
            self.walked.calls.push(*only);
        }
    }

    fn is_unordered(&self, expr: &Expr) -> Option<String> {
        match self.variables.of_expr(expr)? {
            ty @ Ty::Named(Target::Outside(..), ..) if self.index.is_unordered(&ty) => {
                let Ty::Named(Target::Outside(path), ..) = ty else { return None };
                path.last().cloned()
            }
            _ => None,
        }
    }

    /// What this chain comes to is the same in any order: `map.values().filter(..)`, before `.sum()`.
    fn alike_in_any_order(&mut self, mut chain: &Expr) {
        while let Expr::MethodCall(call) = chain {
            let name = call.method.to_string();
            if IN_ITS_ORDER.contains(&name.as_str()) && self.is_unordered(&call.receiver).is_some() {
                let at = place(&call.method);
                self.in_any_order.insert((at.line, at.column));
                return;
            }
            let touches = call.args.iter().any(|argument| self.touches_the_workflow(argument));
            if touches || !HARMLESS_BETWEEN.contains(&name.as_str()) {
                return;
            }
            chain = &call.receiver;
        }
    }

    fn touches_the_workflow(&self, expr: &Expr) -> bool {
        struct Touches<'n>(BTreeSet<&'n str>, bool);
        impl Visit<'_> for Touches<'_> {
            fn visit_ident(&mut self, ident: &Ident) {
                self.1 |= self.0.contains(ident.to_string().as_str());
            }
            fn visit_macro(&mut self, _: &Macro) {
                self.1 = true;
            }
        }
        let mut touches = Touches(self.variables.contexts().collect(), false);
        touches.visit_expr(expr);
        touches.1
    }

    /// Looks at how a chain ends: by what the order makes no difference to?
    fn ends(&mut self, call: &ExprMethodCall) {
        let name = call.method.to_string();
        let collected = call.turbofish.iter().flat_map(|turbofish| &turbofish.args).any(|argument| match argument {
            GenericArgument::Type(ty) => is_collected_alike(ty),
            _ => false,
        });
        if ORDER_FREE.contains(&name.as_str()) || (name == "collect" && collected) {
            self.alike_in_any_order(&call.receiver);
        }
        if let ("extend", Some(more), Some(Ty::Named(Target::Outside(path), ..))) =
            (name.as_str(), call.args.first(), self.variables.of_expr(&call.receiver))
            && path.last().is_some_and(|name| COLLECTED_ALIKE.contains(&name.as_str()))
        {
            self.alike_in_any_order(more);
        }
    }

    fn awaited(&mut self, base: &Expr) {
        let root = root(base);
        let path = match root {
            Expr::Call(call) => match &*call.func {
                Expr::Path(path) => Some(&path.path),
                _ => None,
            },
            Expr::Macro(invocation) => Some(&invocation.mac.path),
            _ => None,
        };
        let of_path = path.and_then(|path| match self.variables.resolve(path) {
            // Rules that name it say more.
            Target::Outside(names) if of_path(&names).is_some() || of_macro(&names).is_some() => None,
            Target::Outside(names) => Some(names),
            Target::Here(..) => None,
        });
        let of_type = || match self.variables.of_expr(root) {
            Some(Ty::Named(Target::Outside(names), ..)) if !matches!(root, Expr::Call(_)) || path.is_none() => {
                Some(names)
            }
            _ => None,
        };
        let names = of_path.or_else(of_type).filter(|names| any(FOREIGN, names));
        if let Some(names) = names {
            self.hit(place(root), Rule::named("foreign"), format!("`.await` on a future of `{}`", names.join("::")));
        }
    }

    /// Code in a macro's arguments. `x = f()` there gives a name, as in `select!`.
    fn piece(&mut self, piece: &Stmt) {
        let Stmt::Expr(Expr::Assign(arm), _) = piece else { return self.visit_stmt(piece) };
        self.visit_expr(&arm.right);
        let mut names = Names::default();
        names.visit_expr(&arm.left);
        names.0.iter().for_each(|name| self.variables.hide(name));
    }

    fn stmts(&mut self, stmts: &[Stmt]) {
        for (index, stmt) in stmts.iter().enumerate() {
            if let (Stmt::Local(local), Some(Stmt::Expr(Expr::MethodCall(next), _))) = (stmt, stmts.get(index + 1))
                && next.method.to_string().starts_with("sort")
                && let (Some(name), Some(collected)) = (bound(&local.pat), collected(local))
                && matches!(&*next.receiver, Expr::Path(path) if path.path.is_ident(name))
            {
                self.alike_in_any_order(collected);
            }
            self.visit_stmt(stmt);
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_, '_> {
    /// Other functions, which are looked through when they are called.
    fn visit_item(&mut self, _: &'ast Item) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
    fn visit_pat(&mut self, _: &'ast Pat) {}
    fn visit_type(&mut self, _: &'ast Type) {}

    fn visit_block(&mut self, block: &'ast Block) {
        let around = self.variables.enter_block(block);
        self.stmts(&block.stmts);
        self.variables.leave_block(around);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        let ty = local.init.as_ref().and_then(|init| self.variables.of_expr(&init.expr));
        if let (Pat::Type(typed), Some(collected)) = (&local.pat, collected(local))
            && is_collected_alike(&typed.ty)
        {
            self.alike_in_any_order(collected);
        }
        visit::visit_local(self, local);
        self.variables.bind(&local.pat, ty);
    }

    fn visit_expr_closure(&mut self, closure: &'ast ExprClosure) {
        self.variables.enter();
        closure.inputs.iter().for_each(|input| self.variables.bind(input, None));
        self.visit_expr(&closure.body);
        self.variables.leave();
    }

    fn visit_expr_if(&mut self, branch: &'ast ExprIf) {
        self.variables.enter();
        self.visit_expr(&branch.cond);
        self.visit_block(&branch.then_branch);
        self.variables.leave();
        if let Some((_, otherwise)) = &branch.else_branch {
            self.visit_expr(otherwise);
        }
    }

    fn visit_expr_while(&mut self, repeat: &'ast ExprWhile) {
        self.variables.enter();
        visit::visit_expr_while(self, repeat);
        self.variables.leave();
    }

    fn visit_expr_let(&mut self, condition: &'ast ExprLet) {
        self.visit_expr(&condition.expr);
        let ty = self.variables.of_expr(&condition.expr);
        self.variables.bind(&condition.pat, ty);
    }

    fn visit_expr_match(&mut self, choice: &'ast ExprMatch) {
        self.visit_expr(&choice.expr);
        let ty = self.variables.of_expr(&choice.expr);
        for Arm { pat, guard, body, .. } in &choice.arms {
            self.variables.enter();
            self.variables.bind(pat, ty.clone());
            guard.iter().for_each(|(_, guard)| self.visit_expr(guard));
            self.visit_expr(body);
            self.variables.leave();
        }
    }

    fn visit_expr_for_loop(&mut self, repeat: &'ast ExprForLoop) {
        let over = root_of_loop(&repeat.expr);
        // Of `for x in map.iter()` the method tells.
        if !matches!(over, Expr::MethodCall(call) if IN_ITS_ORDER.contains(&call.method.to_string().as_str()))
            && let Some(name) = self.is_unordered(over)
        {
            self.hit(place(&repeat.expr), Rule::named("unordered"), format!("`for` over a `{name}`"));
        }
        self.visit_expr(&repeat.expr);
        let each = self.variables.of_expr(&repeat.expr).and_then(|many| self.index.each(&many));
        self.variables.enter();
        self.variables.bind(&repeat.pat, each);
        self.visit_block(&repeat.body);
        self.variables.leave();
    }

    fn visit_expr_path(&mut self, path: &'ast ExprPath) {
        if path.qself.is_none() {
            self.named(&path.path);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let (name, at) = (call.method.to_string(), place(&call.method));
        let on = self.variables.of_expr(&call.receiver);
        self.ends(call);
        let is_any_order = self.in_any_order.contains(&(at.line, at.column));
        if IN_ITS_ORDER.contains(&name.as_str())
            && !is_any_order
            && let Some(of) = self.is_unordered(&call.receiver)
        {
            self.hit(at, Rule::named("unordered"), format!("`.{name}()` of a `{of}`"));
        }
        if let Some(Ty::Named(Target::Outside(path), ..)) = &on
            && let Some(rule) = of_method(path, &name)
        {
            self.hit(at, rule, format!("`.{name}()` of a `{}`", path.join("::")));
        }
        self.called(on.as_ref(), &name);
        self.visit_expr(&call.receiver);
        // What a side effect gives is recorded, and it may be anything.
        let recorded = name == "side_effect" && on.is_some_and(|on| self.index.is_workflow(&on));
        if !recorded {
            call.args.iter().for_each(|argument| self.visit_expr(argument));
        }
    }

    fn visit_expr_await(&mut self, awaited: &'ast ExprAwait) {
        self.awaited(&awaited.base);
        visit::visit_expr_await(self, awaited);
    }

    fn visit_macro(&mut self, invocation: &'ast Macro) {
        let mut tokens = invocation.tokens.clone().into_iter();
        let is_biased = matches!(tokens.next(), Some(TokenTree::Ident(word)) if word == "biased");
        if let Target::Outside(names) = self.variables.resolve(&invocation.path)
            && let Some(rule) = of_macro(&names)
            && !is_biased
        {
            self.hit(place(&invocation.path), rule, format!("`{}!`", names.join("::")));
        }
        if invocation
            .path
            .segments
            .last()
            .is_some_and(|name| name.ident == "thread_local" || name.ident == "macro_rules")
        {
            return;
        }
        self.variables.enter();
        pieces(invocation.tokens.clone()).iter().for_each(|piece| self.piece(piece));
        self.variables.leave();
    }
}

/// What a chain of calls begins with.
fn root(mut expr: &Expr) -> &Expr {
    loop {
        expr = match expr {
            Expr::MethodCall(call) => &call.receiver,
            Expr::Await(inner) => &inner.base,
            Expr::Try(inner) => &inner.expr,
            Expr::Paren(inner) => &inner.expr,
            Expr::Reference(inner) => &inner.expr,
            other => return other,
        }
    }
}

fn root_of_loop(mut expr: &Expr) -> &Expr {
    loop {
        expr = match expr {
            Expr::Paren(inner) => &inner.expr,
            Expr::Reference(inner) => &inner.expr,
            other => return other,
        }
    }
}

/// What is collected into this variable: `let keys = map.keys().collect()`.
fn collected(local: &Local) -> Option<&Expr> {
    match &*local.init.as_ref()?.expr {
        Expr::MethodCall(call) if call.method == "collect" => Some(&call.receiver),
        _ => None,
    }
}

fn bound(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(name) => Some(&name.ident),
        Pat::Type(typed) => bound(&typed.pat),
        _ => None,
    }
}

/// Whether this type is the same in whatever order it was collected: a map or a set, or a result of one.
fn is_collected_alike(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    let name = last.ident.to_string();
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.first(),
        _ => None,
    };
    COLLECTED_ALIKE.contains(&name.as_str())
        || (name == "Result" && matches!(inner, Some(GenericArgument::Type(inner)) if is_collected_alike(inner)))
}

/// Names in a pattern that was read as an expression.
#[derive(Default)]
struct Names(Vec<Ident>);

impl Visit<'_> for Names {
    fn visit_expr_path(&mut self, path: &ExprPath) {
        self.0.extend(path.path.get_ident().cloned());
    }
}
