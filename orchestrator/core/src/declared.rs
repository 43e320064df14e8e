//! What an application declares about the JSON that callers send: inputs by workflow type, arguments by the names of
//! signals and queries. A front door refuses with it what no code could read, before anything is written.

use std::any::{TypeId, type_name};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::DeserializeOwned;

use crate::misfit::{Misfit, StoredKind};
use crate::names::{Query, Signal};
use crate::panics::catch;
use crate::payload::Payload;

/// From here on, one name may be a slip for another, by Jaro and Winkler: 1 is the same.
const ALIKE: f64 = 0.8;

type Check = fn(&Payload) -> Result<(), Misfit>;

/// What is known of a signal or a query.
#[derive(Clone, Copy)]
struct Declaration {
    types: TypeId,
    shown: &'static str,
    check: Check,
    /// What the name stands for in storage: a query's published value.
    stored: Check,
}

/// The types behind an application's names, as far as it declares them. Cloning copies names alone.
#[derive(Clone, Default)]
pub struct Declared {
    inputs: BTreeMap<Cow<'static, str>, Check>,
    signals: BTreeMap<&'static str, Declaration>,
    queries: BTreeMap<&'static str, Declaration>,
    results: BTreeMap<&'static str, Check>,
    task_queues: BTreeSet<&'static str>,
}

impl Declared {
    pub(crate) fn add_workflow<I: DeserializeOwned>(&mut self, workflow_type: &'static str) {
        self.inputs.insert(workflow_type.into(), check::<I>);
    }

    /// A program reads its input by itself.
    pub(crate) fn add_program(&mut self, workflow_type: Cow<'static, str>) {
        self.inputs.insert(workflow_type, |_| Ok(()));
    }

    /// Adds a signal, or says which other type it is declared with.
    pub(crate) fn add_signal<T: DeserializeOwned + 'static>(&mut self, signal: Signal<T>) -> Result<(), String> {
        let (types, shown) = (TypeId::of::<T>(), type_name::<T>());
        let of = Declaration { types, shown, check: check::<T>, stored: check::<T> };
        add(&mut self.signals, "signal", signal.name(), of)
    }

    /// Adds a query, or says which other types it is declared with.
    pub(crate) fn add_query<T: DeserializeOwned + 'static, A: DeserializeOwned + 'static>(
        &mut self,
        query: Query<T, A>,
    ) -> Result<(), String> {
        let check = if takes_none::<A>() { check_none } else { check::<A> };
        let (types, shown) = (TypeId::of::<(T, A)>(), type_name::<Query<T, A>>());
        let of = Declaration { types, shown, check, stored: self::check::<T> };
        add(&mut self.queries, "query", query.name(), of)
    }

    /// Adds what an activity of the application gives.
    pub(crate) fn add_activity<O: DeserializeOwned>(&mut self, activity_type: &'static str) {
        self.results.insert(activity_type, check::<O>);
    }

    pub(crate) fn add_task_queue(&mut self, name: &'static str) {
        self.task_queues.insert(name);
    }

    /// The task queues that the application names, in order.
    pub fn task_queues(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.task_queues.iter().copied()
    }

    /// Whether there is a workflow of this type.
    #[must_use]
    pub fn has_workflow(&self, workflow_type: &str) -> bool {
        self.inputs.contains_key(workflow_type)
    }

    /// The types of all workflows, in order.
    pub fn workflow_types(&self) -> impl Iterator<Item = &str> + '_ {
        self.inputs.keys().map(AsRef::as_ref)
    }

    /// The names of all declared signals, in order.
    pub fn signals(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.signals.keys().copied()
    }

    /// The names of all declared queries, in order.
    pub fn queries(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.queries.keys().copied()
    }

    /// Whether this can be the input of a workflow of this type. What is not declared is not checked.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn input(&self, workflow_type: &str, input: &Payload) -> Result<(), Misfit> {
        self.inputs.get(workflow_type).map_or(Ok(()), |check| check(input))
    }

    /// Whether this can be the argument of a signal of this name. What is not declared is not checked.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn signal(&self, name: &str, argument: &Payload) -> Result<(), Misfit> {
        self.signals.get(name).map_or(Ok(()), |declared| (declared.check)(argument))
    }

    /// What a sender is told of a signal of this name, where the application declares its signals and this is none of
    /// them. Code may read it all the same.
    #[must_use]
    pub fn unknown_signal(&self, name: &str) -> Option<String> {
        if self.signals.is_empty() || self.signals.contains_key(name) {
            return None;
        }
        let alike = self.signals.keys().map(|known| (strsim::jaro_winkler(name, known), known));
        let closest = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let meant = closest.filter(|(alike, _)| *alike > ALIKE).map(|(_, known)| format!("did you mean {known:?}? "));
        Some(format!(
            "the application declares no signal {name:?}; {}it is recorded, and waits for code that reads it",
            meant.unwrap_or_default()
        ))
    }

    /// Whether this can be the argument of a query of this name. What is not declared is not checked.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn query(&self, name: &str, argument: &Payload) -> Result<(), Misfit> {
        self.queries.get(name).map_or(Ok(()), |declared| (declared.check)(argument))
    }

    /// Whether this can be read as what the activity of this name gives. What is not declared is not checked.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn result(&self, activity_type: &str, result: &Payload) -> Result<(), Misfit> {
        self.results.get(activity_type).map_or(Ok(()), |check| check(result))
    }

    /// Whether this can be read as what the query of this name answers. What is not declared is not checked.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn published(&self, name: &str, value: &Payload) -> Result<(), Misfit> {
        self.queries.get(name).map_or(Ok(()), |declared| (declared.stored)(value))
    }

    /// Whether a stored value of this kind and name has a type that the application says.
    pub(crate) fn says(&self, kind: StoredKind, name: &str) -> bool {
        match kind {
            // Nobody but the workflow's own code gives it a value.
            StoredKind::SideEffect => true,
            StoredKind::Input => self.inputs.contains_key(name),
            StoredKind::Result => self.results.contains_key(name),
            StoredKind::Signal => self.signals.contains_key(name),
            StoredKind::Published => self.queries.contains_key(name),
        }
    }
}

fn add(
    all: &mut BTreeMap<&'static str, Declaration>,
    kind: &str,
    name: &'static str,
    declaration: Declaration,
) -> Result<(), String> {
    match all.insert(name, declaration) {
        // Parts of an application may each declare what they share.
        Some(other) if other.types != declaration.types => {
            Err(format!("{kind} {name:?} is declared with two types, {} and {}", other.shown, declaration.shown))
        }
        _ => Ok(()),
    }
}

/// Whether a query with this argument takes none.
pub(crate) fn takes_none<A: 'static>() -> bool {
    TypeId::of::<A>() == TypeId::of::<()>()
}

fn check_none(payload: &Payload) -> Result<(), Misfit> {
    if *payload == Payload::NULL { Ok(()) } else { Err(Misfit::no_argument()) }
}

fn check<T: DeserializeOwned>(payload: &Payload) -> Result<(), Misfit> {
    // How a type is read is its own code, and whoever asks here is not in its power.
    catch(|| payload.read::<T>().map(drop)).unwrap_or_else(|panic| {
        let problem = format!("reading it as {} panicked: {panic}", type_name::<T>());
        Err(Misfit { pointer: String::new(), problem })
    })
}

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declared")
            .field("inputs", &self.inputs.keys())
            .field("signals", &self.signals.keys())
            .field("queries", &self.queries.keys())
            .field("task_queues", &self.task_queues)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use crate::failure::Failure;
    use crate::workflow::Workflow;

    async fn counting(_: Workflow, _: Vec<u8>) -> Result<(), Failure> {
        Ok(())
    }

    #[derive(Debug)]
    struct Explosive;

    impl<'de> serde::Deserialize<'de> for Explosive {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("careful")
        }
    }

    fn json(text: &'static str) -> Payload {
        Payload::from_json(text.into())
    }

    #[test]
    fn only_what_is_declared_is_checked() {
        let app = App::new()
            .workflow("counting", counting)
            .signal(Signal::<bool>::new("go"))
            .query(Query::<String, u32>::new("page"))
            .query(Query::<String>::new("status"));
        app.check().unwrap();
        let declared = app.declared();
        assert!(declared.has_workflow("counting") && !declared.has_workflow("go"));
        assert_eq!(declared.input("counting", &json("[1, 2]")), Ok(()));
        assert_eq!(declared.input("counting", &json("[1, 256]")).unwrap_err().pointer, "/1");
        assert_eq!(declared.input("other", &json("7")), Ok(()));
        assert_eq!(declared.signal("go", &json("true")), Ok(()));
        assert!(declared.signal("go", &json("7")).is_err());
        assert_eq!(declared.signal("page", &json("\"x\"")), Ok(()), "a query's name is not a signal's");
        assert!(declared.query("page", &json("\"x\"")).is_err());
        assert_eq!(declared.query("status", &Payload::NULL), Ok(()));
        assert!(declared.query("status", &json("7")).is_err());
    }

    #[test]
    fn a_slip_in_a_signals_name_is_seen() {
        assert_eq!(App::new().declared().unknown_signal("go"), None, "nothing is declared");
        let app = App::new().signal(Signal::<bool>::new("approval")).signal(Signal::<bool>::new("go"));
        assert_eq!(app.declared().unknown_signal("approval"), None);
        for slip in ["aproval", "Approval", "approvel", "apporval"] {
            let said = app.declared().unknown_signal(slip).unwrap();
            assert!(said.contains("did you mean \"approval\"?"), "{said}");
        }
        let said = app.declared().unknown_signal("invoice").unwrap();
        assert!(said.contains("declares no signal \"invoice\"; it is recorded"), "{said}");
    }

    #[test]
    fn a_query_without_an_argument_says_so() {
        let app = App::new().query(Query::<String>::new("status"));
        let misfit = app.declared().query("status", &json("7")).unwrap_err();
        assert_eq!(misfit.to_string(), "it takes no argument");
    }

    #[test]
    fn a_name_has_one_type() {
        let app = App::new().signal(Signal::<bool>::new("go")).signal(Signal::<bool>::new("go"));
        app.check().unwrap();
        let wrong = app
            .signal(Signal::<u32>::new("go"))
            .query(Query::<u32>::new("q"))
            .query(Query::<u32, u32>::new("q"))
            .signal(Signal::<u32>::new(""));
        let said = wrong.check().unwrap_err().to_string();
        for part in ["signal \"go\" is declared with two types, bool and u32", "query \"q\"", "signal \"\": "] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
    }

    #[test]
    fn types_that_panic_are_misfits() {
        let app = App::new().signal(Signal::<Explosive>::new("boom"));
        assert!(app.declared().signal("boom", &json("7")).unwrap_err().problem.contains("careful"));
    }
}
