//! Choices, given what is due and what runs.

use domain::ids::{Subject, Timestamp};
use serde_json::json;
use store::Waited;
use uuid::Uuid;

use super::*;

/// The `n`th job of a key, of a priority.
fn job(n: u32, key: &str, priority: i16) -> DueJob {
    DueJob {
        slice: 0,
        id: Uuid::from_u128(n.into()),
        kind: "test_ok".to_owned(),
        subject: Subject::from_stored(key.to_owned()),
        args: json!({}),
        run_at: Timestamp::from_timestamp(n.into(), 0).unwrap(),
        attempt: 0,
        errors: 0,
        max_attempts: 1,
        causation_id: None,
        correlation_id: None,
        priority,
        queue: "default".to_owned(),
        lane: Lane::Open,
        limit_key: None,
        limit: 1,
        ordered: false,
        fair_key: None,
        crashes: 0,
        waited: Waited::since(Timestamp::default(), Timestamp::default()),
        waits: None,
    }
}

fn of(n: u32, whose: &str) -> DueJob {
    DueJob { fair_key: Some(whose.to_owned()), lane: Lane::Shared, ..job(n, &n.to_string(), 2) }
}

/// Chooses among these. What is left waits no longer than the test.
fn choose(jobs: Vec<DueJob>, offer: Offer<'_>, shares: &mut Shares) -> Chosen {
    let mut backlog = Backlog::default();
    backlog.put(jobs.into_iter().map(Due::new));
    super::choose(&mut backlog, offer, shares)
}

fn pick_held(
    jobs: Vec<DueJob>,
    taken: Taken,
    slots: usize,
    holders: Holders,
    shares: &mut Shares,
) -> Chosen {
    let parked = BTreeMap::new();
    choose(jobs, Offer { taken, slots, parked: &parked, holders }, shares)
}

/// Chooses with so many slots, nothing paused, parked or held.
fn pick(jobs: Vec<DueJob>, taken: Taken, slots: usize, shares: &mut Shares) -> Chosen {
    pick_held(jobs, taken, slots, Holders::new(), shares)
}

fn numbers(jobs: &[Due]) -> Vec<u128> {
    jobs.iter().map(|job| job.id.as_u128()).collect()
}

#[test]
fn jobs_of_a_key_start_one_at_a_time_and_in_order() {
    let due = vec![job(1, "a", 2), job(2, "a", 2), job(3, "b", 2)];
    let chosen = pick(due, Taken::default(), 9, &mut Shares::default());
    assert_eq!(numbers(&chosen.start), [1, 3]);
    assert_eq!(numbers(&chosen.blocked), [2]);
}

#[test]
fn a_suspect_starts_while_no_other_suspect_runs_and_holds_up_nobody_else() {
    let suspect = |n: u32| DueJob { crashes: SUSPECT, ..job(n, &n.to_string(), 2) };
    let crashed_once = DueJob { crashes: 1, ..job(5, "e", 2) };
    let due = vec![suspect(1), suspect(2), job(3, "c", 2), job(4, "2", 2), crashed_once];
    let chosen = pick(due.clone(), Taken::default(), 9, &mut Shares::default());
    assert_eq!(numbers(&chosen.start), [1, 3, 5]);
    assert_eq!(numbers(&chosen.blocked), [2, 4], "and the jobs of its key stay behind it");
    let taken = Taken { suspects: 1, ..Taken::default() };
    let chosen = pick(due, taken, 9, &mut Shares::default());
    assert_eq!(numbers(&chosen.start), [3, 5]);
}

#[test]
fn as_many_of_a_key_run_as_its_limit_says_counting_those_that_run() {
    let limited = |n| DueJob { limit: 3, limit_key: Some("k".to_owned()), ..job(n, "x", 2) };
    let taken = Taken { keys: HashMap::from([("k".into(), 1)]), ..Taken::default() };
    let chosen = pick((1..6).map(limited).collect(), taken, 9, &mut Shares::default());
    assert_eq!(numbers(&chosen.start), [1, 2]);
}

#[test]
fn a_later_job_of_a_key_does_not_pass_an_earlier_one_by_a_greater_limit() {
    let due = vec![
        job(1, "a", 2),
        DueJob { limit: 1, ..job(2, "a", 2) },
        DueJob { limit: 9, ..job(3, "a", 2) },
    ];
    let chosen = pick(due, Taken::default(), 9, &mut Shares::default());
    assert_eq!((numbers(&chosen.start), numbers(&chosen.blocked)), (vec![1], vec![2, 3]));
}

/// A job that keeps its order, of a key of which so many may run.
fn ordered(n: u32, limit: i16) -> DueJob {
    DueJob { ordered: true, limit, ..job(n, "a", 2) }
}

fn held_by(ids: &[u128]) -> Holders {
    let ids = ids.iter().map(|id| Uuid::from_u128(*id)).collect();
    BTreeMap::from([((0, "a".to_owned()), ids)])
}

#[test]
fn an_ordered_job_waits_for_the_one_that_holds_its_key_and_that_one_goes_before_all() {
    let start = |due: Vec<DueJob>, holders: &[u128]| {
        let mut shares = Shares::default();
        pick_held(due, Taken::default(), 9, held_by(holders), &mut shares)
    };
    let due = vec![ordered(2, 1), ordered(3, 1), job(4, "b", 2)];
    let chosen = start(due.clone(), &[9]);
    assert_eq!((numbers(&chosen.start), numbers(&chosen.blocked)), (vec![4], vec![2, 3]));
    assert_eq!(numbers(&start(due.clone(), &[]).start), [2, 4]);
    // Its next try is later than the others are due.
    let chosen = start([due, vec![ordered(9, 1)]].concat(), &[9]);
    assert_eq!((numbers(&chosen.start), numbers(&chosen.blocked)), (vec![4, 9], vec![2, 3]));
    let without = vec![job(5, "a", 2)];
    assert_eq!(numbers(&start(without, &[9]).start), [5], "who does not ask for order has none");
}

#[test]
fn of_a_key_with_a_limit_so_many_hold_it_whether_they_run_or_wait() {
    let due: Vec<DueJob> = (1..=4).map(|n| ordered(n, 3)).collect();
    let of = |runs, holders: &[u128]| {
        let taken = Taken { keys: HashMap::from([("a".into(), runs)]), ..Taken::default() };
        let due = due.clone();
        numbers(&pick_held(due, taken, 9, held_by(holders), &mut Shares::default()).start)
    };
    assert_eq!(of(1, &[9]), [1], "one runs, one waits, one may start");
    assert_eq!(of(1, &[2, 4]), [2, 4], "those that have begun, and no other");
    assert_eq!(of(3, &[2]), [0; 0], "no more than the limit run whatever they hold");
}

#[test]
fn a_holder_of_a_parked_key_is_not_behind_what_is_parked() {
    let parked = BTreeMap::from([((0, "a".to_owned()), None)]);
    let due = vec![DueJob { lane: Lane::Parked, ..ordered(1, 1) }, ordered(9, 1)];
    let taken = Taken::default();
    let holders = held_by(&[9]);
    let offer = Offer { taken, slots: 9, parked: &parked, holders };
    let chosen = choose(due, offer, &mut Shares::default());
    assert_eq!((numbers(&chosen.start), numbers(&chosen.blocked)), (vec![9], vec![1]));
}

#[test]
fn parked_jobs_of_a_key_go_before_those_found_by_time() {
    let parked = BTreeMap::from([((0, "a".to_owned()), None)]);
    let mut due = vec![job(1, "a", 2), DueJob { lane: Lane::Parked, ..job(2, "a", 2) }];
    let choose = |due| {
        let taken = Taken::default();
        let holders = Holders::new();
        let offer = Offer { taken, slots: 9, parked: &parked, holders };
        self::choose(due, offer, &mut Shares::default())
    };
    assert_eq!(numbers(&choose(due.clone()).start), [2]);
    due.pop();
    assert_eq!(numbers(&choose(due).start), [0; 0], "it is behind what was not read");
}

#[test]
fn priorities_share_the_starts_eight_to_four_to_two_to_one_and_none_starves() {
    let mut shares = Shares::default();
    let mut starts = [0; 4];
    // One slot at a time, as in a process that is busy.
    for round in 0..150 {
        let due = (1..=4).map(|p| job(round, &format!("{p}"), p)).collect();
        let chosen = pick(due, Taken::default(), 1, &mut shares);
        starts[usize::try_from(chosen.start[0].priority - 1).unwrap()] += 1;
    }
    assert_eq!(starts, [80, 40, 20, 10]);
}

#[test]
fn a_priority_alone_has_all_slots() {
    let due = (0..9).map(|n| job(n, &n.to_string(), 4)).collect();
    assert_eq!(pick(due, Taken::default(), 9, &mut Shares::default()).start.len(), 9);
}

#[test]
fn fair_keys_take_turns_however_many_jobs_one_of_them_has() {
    let mut due: Vec<DueJob> = (0..90).map(|n| of(n, "big")).collect();
    due.extend((90..93).map(|n| of(n, "small")));
    due.extend((93..96).map(|n| job(n, &n.to_string(), 2)));
    let chosen = pick(due, Taken::default(), 9, &mut Shares::default());
    let of = |whose: Option<&str>| {
        chosen.start.iter().filter(|job| job.fair_key.as_deref() == whose).count()
    };
    assert_eq!((of(Some("big")), of(Some("small")), of(None)), (3, 3, 3));
}

#[test]
fn who_had_no_turn_for_longest_is_next_also_over_many_looks() {
    let mut shares = Shares::default();
    let turns: Vec<String> = (0..6)
        .map(|round| {
            let due = vec![of(10 * round, "a"), of(10 * round + 1, "b"), of(10 * round + 2, "c")];
            pick(due, Taken::default(), 1, &mut shares).start.remove(0).fair_key.unwrap()
        })
        .collect();
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn who_runs_least_is_next() {
    let taken = Taken { fair_keys: HashMap::from([("a".into(), 2)]), ..Taken::default() };
    let due = (0..9).map(|n| of(n, if n % 2 == 0 { "a" } else { "b" })).collect();
    let chosen = pick(due, taken, 2, &mut Shares::default());
    assert!(chosen.start.iter().all(|job| job.fair_key.as_deref() == Some("b")));
}

#[test]
fn what_is_left_waits_for_the_next_choice_in_its_order_with_what_is_put_in_later() {
    let mut backlog = Backlog::default();
    let mut shares = Shares::default();
    let mut start = |backlog: &mut Backlog| {
        let parked = BTreeMap::new();
        let (taken, holders) = (Taken::default(), Holders::new());
        let offer = Offer { taken, slots: 2, parked: &parked, holders };
        let Chosen { start, blocked } = super::choose(backlog, offer, &mut shares);
        backlog.put(blocked);
        numbers(&start)
    };
    backlog.put([3, 4, 5, 7].map(|n| Due::new(job(n, "a", 2))));
    backlog.put([6, 8].map(|n| Due::new(job(n, &n.to_string(), 2))));
    assert_eq!(start(&mut backlog), [3, 6], "one of the key");
    backlog.put([1, 2].map(|n| Due::new(job(n, "a", 2))));
    assert_eq!(start(&mut backlog), [1, 8]);
    backlog.retain(|job| job.id != Uuid::from_u128(4));
    assert_eq!([1; 3].map(|_| start(&mut backlog)), [[2], [5], [7]]);
    assert!(backlog.is_empty() && start(&mut backlog).is_empty());
}
