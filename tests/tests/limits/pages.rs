//! Pages that are exactly full, and more than one of them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use dormouse::Status;
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::RunFilter;
use dormouse_engine::sweep::sweep_once;
use dormouse_testing::World;
use dormouse_testing::world::{SWEEP, drive, latest};

use super::clockwork::{Limits, Seen, Step, app};

/// Rows that the sweep reads at a time.
const SWEPT_AT_A_TIME: usize = 500;

fn world(runs: usize) -> World {
    let world = World::new(app(Seen::default()));
    let process = world.process();
    for n in 0..runs {
        process.start("local", &format!("w{n:04}"), "r", &[[Step::Hang]]);
    }
    world.mail.drop_messages();
    world
}

/// A listing says that there is more when there is, and not when its last page is full.
#[test]
fn a_full_page_of_runs_is_the_last() {
    let world = world(6);
    let process = world.process();
    let running = RunFilter { status: Some(Status::Running), ..RunFilter::default() };
    for page_size in 1..=7 {
        let (mut after, mut pages, mut found) = (None, 0, BTreeSet::new());
        loop {
            let (page, next) = drive(process.front.list(&running, after.as_ref(), page_size)).unwrap().unwrap();
            pages += 1;
            let full = page.workflows.len() == page_size;
            found.extend(page.workflows.into_iter().map(|run| run.workflow_id));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
            assert!(full, "only the last page may be shorter");
        }
        assert_eq!((pages, found.len()), (6_usize.div_ceil(page_size), 6), "by {page_size}");
    }
    let none = RunFilter { status: Some(Status::Failed), ..RunFilter::default() };
    let (page, next) = drive(process.front.list(&none, None, 1)).unwrap().unwrap();
    assert!(page.workflows.is_empty() && next.is_none());
}

/// The same for a history, whose batches hold several events each.
#[test]
fn a_full_page_of_history_is_the_last() {
    let world = World::new(app(Seen::default()));
    let process = world.process();
    let limits = Limits { start_to_close: Some(10), ..Limits::default() };
    process.start("limited", "w", "r", &(limits, [[Step::Hang]]));
    process.deliver();
    for n in 0..3 {
        process.signal("w", &format!("s{n}"), "s", &n);
    }
    process.complete(&world.mail.take_tasks().remove(0), 1, &"done");
    let page =
        |after, limit| drive(process.front.history(&latest("w"), after, limit)).expect("an answer").expect("a page");
    let all = page(0, 1_000);
    assert_eq!(all.next_page_token, None);
    let events = all.events.len();
    assert!(events > 6, "{events} events");
    let ids: Vec<_> = all.events.iter().map(|event| event.event_id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    for page_size in 1..=events + 1 {
        let (mut after, mut pages, mut found) = (0, 0, Vec::new());
        loop {
            let page = page(after, page_size);
            pages += 1;
            let full = page.events.len() == page_size;
            found.extend(page.events);
            after = found.last().expect("an event").event_id;
            match page.next_page_token {
                Some(token) => assert_eq!((token, full), (after.to_string(), true)),
                None => break,
            }
        }
        assert_eq!((pages, &found), (events.div_ceil(page_size), &all.events), "by {page_size}");
    }
    assert!(page(after_the_last(&ids), 5).events.is_empty(), "nothing has followed yet");
}

fn after_the_last(ids: &[u64]) -> u64 {
    *ids.last().expect("events")
}

/// The sweep sends word to every run that is overdue, once, however many pages they fill, and to no other.
#[test]
fn the_sweep_reads_all_pages() {
    for overdue in [0, SWEPT_AT_A_TIME - 1, SWEPT_AT_A_TIME, SWEPT_AT_A_TIME + 1, 2 * SWEPT_AT_A_TIME] {
        let world = world(overdue);
        world.pass(SWEEP - Duration::from_millis(1));
        let process = world.process();
        process.start("local", "young", "r", &[[Step::Hang]]);
        world.mail.drop_messages();
        let sweep = |go_on: &dyn Fn() -> bool| {
            let found = drive(sweep_once(&process.ports, go_on)).expect("an answer").unwrap();
            let messages = world.mail.drop_messages();
            let swept: BTreeSet<_> =
                messages.iter().map(|message| message.run().workflow.workflow_id.clone()).collect();
            assert!(messages.iter().all(|message| matches!(message, RunMessage::Sweep { .. })));
            assert_eq!((messages.len(), swept.len()), (found, found), "one each");
            (found, swept)
        };
        assert_eq!(sweep(&|| true).0, 0, "nothing is overdue yet");
        world.pass(Duration::from_millis(1));
        let (found, swept) = sweep(&|| true);
        assert_eq!((found, swept.contains("young")), (overdue, false));
        // Where time is short it ends with the page that it is at.
        let looks = Cell::new(0);
        let once = || looks.replace(looks.get() + 1) == 0;
        assert_eq!(sweep(&once).0, overdue.min(SWEPT_AT_A_TIME));
        assert_eq!(sweep(&|| false).0, 0);
    }
}
