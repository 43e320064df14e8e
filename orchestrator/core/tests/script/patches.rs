//! Patches: each run keeps to the way that it went, whatever build goes on with it.

use std::sync::Arc;

use dormouse_core::program::{Place, Program, Raw, Turned};
use dormouse_core::{App, Failure, LiveRun, Payload, Query, TurnFailure, Workflow, WorkflowFunction, join};

use crate::common::{GO, MINUTE, World, app, completed, double, halve, json, local, run_key, secs, signal};

/// Another build goes on with the run.
fn deploy<A, F: WorkflowFunction<A>>(world: &mut World, code: F) {
    world.app = Arc::new(app(code));
    world.reload();
}

fn refuses<A, F: WorkflowFunction<A>>(world: &World, code: F) -> String {
    let failure = LiveRun::replay(&Arc::new(app(code)), &run_key(0), &world.log).map(|_| ()).unwrap_err();
    assert!(matches!(failure, TurnFailure::Diverged { .. }), "{failure:?}");
    failure.to_string()
}

fn go(world: &mut World, request_id: &str) -> Vec<String> {
    world.arrive(signal(request_id, "go", "true"))
}

/// Before the change.
async fn old(cx: Workflow, n: u32) -> Result<u32, Failure> {
    cx.signal(GO).await?;
    let n = cx.activity(double, &n).options(MINUTE).await?;
    cx.signal(GO).await?;
    cx.activity(double, &n).options(MINUTE).await
}

/// The change, with both ways.
async fn patched(cx: Workflow, n: u32) -> Result<u32, Failure> {
    cx.signal(GO).await?;
    let n = match cx.patched("halve") {
        true => cx.activity(halve, &n).options(MINUTE).await?,
        false => cx.activity(double, &n).options(MINUTE).await?,
    };
    cx.signal(GO).await?;
    match cx.patched("halve") {
        true => cx.activity(halve, &n).options(MINUTE).await,
        false => cx.activity(double, &n).options(MINUTE).await,
    }
}

/// The new way alone, for runs that hold the patch.
async fn deprecated(cx: Workflow, n: u32) -> Result<u32, Failure> {
    cx.signal(GO).await?;
    cx.deprecate_patch("halve");
    let n = cx.activity(halve, &n).options(MINUTE).await?;
    cx.signal(GO).await?;
    cx.deprecate_patch("halve");
    cx.activity(halve, &n).options(MINUTE).await
}

/// The new way alone.
async fn removed(cx: Workflow, n: u32) -> Result<u32, Failure> {
    cx.signal(GO).await?;
    let n = cx.activity(halve, &n).options(MINUTE).await?;
    cx.signal(GO).await?;
    cx.activity(halve, &n).options(MINUTE).await
}

#[test]
fn a_run_that_has_passed_the_place_keeps_to_the_old_way() {
    let mut world = World::run(old, &4);
    assert_eq!(go(&mut world, "1"), ["activity 1 double(4)"]);
    deploy(&mut world, patched);
    world.arrive(completed(1, "8"));
    assert_eq!(go(&mut world, "2"), ["activity 2 double(8)"], "live, and still the old way");
    assert!(world.state().pending.patches.recorded.is_empty());
    deploy(&mut world, old);
    assert_eq!(world.arrive(completed(2, "16")), ["complete 16"], "the old build could go on as well");
}

#[test]
fn a_run_that_comes_to_the_place_goes_the_new_way_and_says_so() {
    let mut world = World::run(old, &4);
    deploy(&mut world, patched);
    assert_eq!(go(&mut world, "1"), ["patch halve", "activity 1 halve(4)"]);
    assert_eq!(world.state().pending.patches.recorded, [("halve".to_owned(), false)].into());
    deploy(&mut world, patched);
    world.arrive(completed(1, "2"));
    assert_eq!(go(&mut world, "2"), ["activity 2 halve(2)"], "one answer, one marker");
    deploy(&mut world, patched);
    assert_eq!(world.arrive(completed(2, "1")), ["complete 1"]);
}

#[test]
fn code_without_the_patch_is_told_which_and_what_to_do() {
    let mut world = World::run(patched, &4);
    go(&mut world, "1");
    let text = refuses(&world, removed);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "the workflow's code no longer matches its history (turn 2):");
    let recorded = format!("  recorded:  patch \"halve\" at {}:", file!());
    assert!(lines[1].starts_with(&recorded), "{text}");
    assert!(lines[2].starts_with("  attempted: activity \"halve\" (id 1) at "), "{text}");
    assert_eq!(
        lines[3],
        "The history holds patch \"halve\" at this point, and the code does not ask for it: put `cx.patched(\"halve\")` \
         back there. Where the new way is the only one left, call `cx.deprecate_patch(\"halve\")` there instead, until no \
         open run holds the patch, unless as a deprecated one (`workflow describe` tells)."
    );
    // A build from before the patch, as after a roll-back.
    assert!(refuses(&world, old).contains("recorded:  patch \"halve\" at "));
    let waits = refuses(&world, |cx: Workflow, n: u32| async move {
        cx.signal(GO).await?;
        cx.signal(GO).await?;
        Ok(n)
    });
    assert!(waits.contains("recorded:  patch \"halve\"") && waits.contains("; it waits at "), "{waits}");
}

#[test]
fn a_patch_that_is_deprecated_can_be_left_out_in_the_end() {
    // One that began when both ways were there.
    let mut early = World::run(patched, &4);
    go(&mut early, "1");
    deploy(&mut early, deprecated);
    early.arrive(completed(1, "2"));
    assert_eq!(go(&mut early, "2"), ["activity 2 halve(2)"], "it is recorded once");
    assert!(refuses(&early, removed).contains("patch \"halve\""), "too early for this run");
    assert_eq!(early.state().pending.patches.recorded, [("halve".to_owned(), false)].into());

    // One that began when the new way was the only one.
    let mut late = World::run(deprecated, &4);
    assert_eq!(go(&mut late, "1"), ["deprecated patch halve", "activity 1 halve(4)"]);
    assert_eq!(late.state().pending.patches.recorded, [("halve".to_owned(), true)].into());
    deploy(&mut late, removed);
    late.arrive(completed(1, "2"));
    assert_eq!(go(&mut late, "2"), ["activity 2 halve(2)"]);
    // A build of before goes on with it too.
    deploy(&mut late, patched);
    assert_eq!(late.arrive(completed(2, "1")), ["complete 1"]);
}

#[test]
fn a_deprecated_patch_may_stand_before_its_place() {
    let mut world = World::run(patched, &4);
    go(&mut world, "1");
    deploy(&mut world, |cx: Workflow, n: u32| async move {
        cx.deprecate_patch("halve");
        let n = removed(cx.clone(), n).await?;
        cx.deprecate_patch("halve");
        Ok(n)
    });
    world.arrive(completed(1, "2"));
    assert_eq!(go(&mut world, "2"), ["activity 2 halve(2)"]);
    assert_eq!(world.arrive(completed(2, "1")), ["complete 1"], "the history holds it already");
}

#[test]
fn a_loop_has_one_answer_and_one_marker() {
    async fn rounds(cx: Workflow, patch: bool) -> Result<u32, Failure> {
        let mut sum = 0;
        for n in 1..=3 {
            let new = patch && cx.patched("halve");
            sum += if new { cx.local_activity(halve, &n).await? } else { cx.local_activity(double, &n).await? };
            cx.signal(GO).await?;
        }
        Ok(sum)
    }
    let mut new = World::run(|cx: Workflow, _: ()| rounds(cx, true), &());
    assert_eq!(new.log.len(), 1, "the marker waits with the step, so that a step is one write");
    assert_eq!(new.arrive(local(1, "1")), ["patch halve", "local 1 halve"]);
    assert_eq!(go(&mut new, "1"), ["local 2 halve"]);

    let mut begun = World::run(|cx: Workflow, _: ()| rounds(cx, false), &());
    assert_eq!(begun.arrive(local(1, "1")), ["local 1 double"]);
    deploy(&mut begun, |cx: Workflow, _: ()| rounds(cx, true));
    for (round, id) in [("1", 2), ("2", 3)] {
        assert_eq!(go(&mut begun, round), [format!("local {id} double")], "to the end of the run");
        begun.reload();
        assert_eq!(begun.arrive(local(id, "1")), [""; 0]);
    }
    assert_eq!(go(&mut begun, "3"), ["complete 3"]);
}

#[test]
fn branches_at_once_go_the_same_way() {
    async fn branches(cx: Workflow, _: ()) -> Result<(bool, bool), Failure> {
        let branch = async |seconds| {
            cx.sleep(secs(seconds)).await?;
            Ok::<_, Failure>(cx.patched("both"))
        };
        let (one, other) = join!(branch(5), branch(9));
        Ok((one?, other?))
    }
    let mut world = World::run(branches, &());
    assert_eq!(world.alarm_at(6_000), ["patch both"]);
    world.reload();
    assert_eq!(world.alarm_at(10_000), ["complete [true,true]"]);

    // The first branch had passed the place before it asked: the second follows it.
    let mut begun = World::run(
        |cx: Workflow, _: ()| async move {
            let (one, other) = join!(cx.sleep(secs(5)), cx.sleep(secs(9)));
            one?;
            other?;
            Ok((false, false))
        },
        &(),
    );
    begun.alarm_at(6_000);
    deploy(&mut begun, branches);
    assert_eq!(begun.alarm_at(10_000), ["complete [false,false]"]);
}

#[test]
fn the_run_that_continues_decides_anew() {
    async fn chain_before(cx: Workflow, _: ()) -> Result<bool, Failure> {
        cx.signal(GO).await?;
        cx.signal(GO).await?;
        cx.continue_as_new(chain_before, &())
    }
    async fn chain(cx: Workflow, _: ()) -> Result<bool, Failure> {
        let first = cx.signal(GO).await? && cx.patched("p");
        cx.signal(GO).await?;
        if first { Ok(true) } else { cx.continue_as_new(chain, &()) }
    }
    let mut world = World::run(chain_before, &());
    go(&mut world, "1");
    deploy(&mut world, chain);
    assert_eq!(go(&mut world, "2"), ["continue test(null) carrying []"], "it went the old way");
    let next = world.state().next_run().unwrap().encode();
    let mut next = World::of(Arc::clone(&world.app), run_key(1), vec![next]);
    next.settle();
    assert_eq!(go(&mut next, "3"), ["patch p"]);
    next.reload();
    assert_eq!(go(&mut next, "4"), ["complete true"]);
}

#[test]
fn patches_that_stand_together_have_no_order() {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let ways = (cx.patched("a"), cx.patched("b"));
            assert_eq!(ways, (true, true));
            cx.activity(double, &n).options(MINUTE).await
        },
        &1,
    );
    assert_eq!(world.last_commands(), ["patch a", "patch b", "activity 1 double(1)"]);
    let other = |cx: Workflow, n: u32| async move {
        let ways = (cx.patched("b"), cx.patched("c"), cx.patched("a"));
        assert_eq!(ways, (true, false, true));
        cx.activity(double, &n).options(MINUTE).await
    };
    deploy(&mut world, other);
    assert_eq!(world.arrive(completed(1, "2")), ["complete 2"]);
}

#[test]
fn a_patch_of_a_draft_is_kept_through_lost_writes() {
    let mut world = World::idle(app(patched), "test", json("4"));
    world.settle();
    // What was decided here stands behind what others took in meanwhile.
    let inputs = world.state().accept(&signal("1", "go", "true"), world.now()).unwrap();
    world.live.take_in(inputs);
    world.live.decide(world.now()).unwrap();
    world.merged([signal("2", "go", "true")]);
    assert_eq!(world.commit(), ["patch halve", "activity 1 halve(4)"]);
    world.settle();
    // The close is taken anew behind a signal that it had not heard.
    world.arrive(completed(1, "2"));
    let inputs = world.state().accept(&completed(2, "1"), world.now()).unwrap();
    world.live.take_in(inputs);
    world.elsewhere([signal("3", "go", "true")]);
    world.reload();
    let inputs = world.state().accept(&completed(2, "1"), world.now()).unwrap();
    world.live.take_in(inputs);
    assert_eq!(world.settle(), ["complete 1"]);
}

#[test]
fn nobody_asks_who_may_change_nothing() {
    const WAY: Query<bool> = Query::new("way");
    let world = World::run(
        |cx: Workflow, _: ()| async move {
            let inner = cx.clone();
            cx.answer(WAY, move |()| inner.patched("p"));
            Ok(cx.signal(GO).await?)
        },
        &(),
    );
    let refused = world.live.query("way", &json("null")).unwrap_err();
    assert!(format!("{refused:?}").contains("a query handler tried to act (patched)"), "{refused:?}");
    let mut world = World::idle(
        app(|cx: Workflow, _: ()| async move {
            let inner = cx.clone();
            Ok::<bool, Failure>(cx.side_effect("way", || inner.patched("p")))
        }),
        "test",
        json("null"),
    );
    let failure = world.try_settle().unwrap_err().to_string();
    assert!(failure.contains("a side effect's closure tried to act (patched)"), "{failure}");
}

/// A program that is no Rust future: it says which way it goes when it has heard a word.
struct Guest {
    raw: Raw,
    deprecates: bool,
}

impl Program for Guest {
    fn turn(&mut self) -> Turned {
        if self.raw.take_signal("word").is_none() {
            return Turned::Waits;
        }
        let place = Place::named("guest.ts:3");
        if self.deprecates {
            self.raw.deprecate_patch("p", &place);
        }
        let way = self.raw.patched("p", &place);
        self.raw.publish("way", Payload::encode(&way).unwrap(), &place);
        Turned::Waits
    }
}

#[test]
fn programs_of_other_kinds_have_patches_too() {
    let guest = |deprecates| {
        App::new().program("guest", move |raw, _| Ok(Box::new(Guest { raw, deprecates }) as Box<dyn Program>))
    };
    let mut world = World::idle(guest(false), "guest", json("null"));
    world.settle();
    assert_eq!(world.arrive(signal("1", "word", "1")), ["patch p", "publish way=true"]);
    world.app = guest(true).into();
    world.reload();
    assert_eq!(world.arrive(signal("2", "word", "1")), ["publish way=true"]);
    world.reload();
}
