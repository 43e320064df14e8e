//! From workflows to everything of the crate that they run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syn::Member;

use crate::crates::{CLOSURE, Function, Index, Kind};
use crate::report::Finding;
use crate::types::Ty;
use crate::walk::walk;

/// Findings by their place and rule: whatever leads there, each is told once.
pub(crate) type Found = BTreeMap<(String, usize, usize, &'static str), Finding>;

/// Finds the workflows of a crate, and what they do that they must not.
pub(crate) fn all(index: &Index<'_>, workflows: &mut BTreeSet<(String, usize)>, found: &mut Found) {
    let is_entry = |function: &usize| is_given_a_workflow(index, &index.functions[*function]);
    // Closures stand in functions that may be workflows themselves: these say more about where one is.
    let (closures, named): (Vec<usize>, Vec<usize>) =
        (0..index.functions.len()).filter(is_entry).partition(|at| index.functions[*at].name == CLOSURE);
    let entries: Vec<usize> = named.into_iter().chain(closures).collect();
    workflows
        .extend(entries.iter().map(|at| (index.files[index.functions[*at].file].clone(), index.functions[*at].line)));
    let mut seen: BTreeSet<usize> = entries.iter().copied().collect();
    let mut next: VecDeque<(usize, Vec<String>)> = entries.into_iter().map(|entry| (entry, Vec::new())).collect();
    while let Some((at, mut path)) = next.pop_front() {
        let function = &index.functions[at];
        path.push(name(index, function));
        let walked = walk(index, at);
        for hit in walked.hits {
            let (file, line, column) = (index.files[function.file].clone(), hit.at.line, hit.at.column + 1);
            let finding = Finding::of(hit.rule, &file, (line, column), hit.what, path.clone());
            found.entry((file, line, column, hit.rule.name)).or_insert(finding);
        }
        for called in walked.calls {
            if !is_free(index, &index.functions[called]) && seen.insert(called) {
                next.push_back((called, path.clone()));
            }
        }
    }
}

fn name(index: &Index<'_>, function: &Function<'_>) -> String {
    let owner = function.owner.and_then(|owner| index.ty(owner, function.scope, None));
    match owner.and_then(|owner| index.own_type(&owner)) {
        Some((_, owner)) => format!("{owner}::{}", function.name),
        None => function.name.clone(),
    }
}

fn arguments<'i>(index: &'i Index<'_>, function: &'i Function<'_>) -> impl Iterator<Item = Option<Ty>> + 'i {
    function.arguments.iter().map(|(_, ty)| ty.and_then(|ty| index.ty(ty, function.scope, function.owner)))
}

fn owner(index: &Index<'_>, function: &Function<'_>) -> Option<Ty> {
    let owner = function.owner.filter(|_| function.takes_self)?;
    index.ty(owner, function.scope, None)
}

/// Whether a function is given a `Workflow`: as an argument, as `self`, or as a part of `self`.
fn is_given_a_workflow(index: &Index<'_>, function: &Function<'_>) -> bool {
    let of_self = owner(index, function).is_some_and(|owner| {
        index.is_workflow(&owner) || parts(index, &owner).iter().any(|part| index.is_workflow(part))
    });
    !is_free(index, function)
        && (of_self || arguments(index, function).flatten().any(|argument| index.is_workflow(&argument)))
}

/// Whether it is an activity, or of one's context.
fn is_free(index: &Index<'_>, function: &Function<'_>) -> bool {
    let of_self = owner(index, function).is_some_and(|owner| index.is_activity(&owner));
    of_self || arguments(index, function).next().flatten().is_some_and(|first| index.is_activity(&first))
}

/// What a struct of the crate consists of.
fn parts(index: &Index<'_>, ty: &Ty) -> Vec<Ty> {
    let Some((scope, name)) = index.own_type(ty) else { return Vec::new() };
    let Some(Kind::Struct(fields)) = index.scopes[scope].types.get(&name) else { return Vec::new() };
    let members = fields.members();
    members.filter_map(|member: Member| index.field(ty, &member)).collect()
}
