//! Stories in virtual time: whole sessions on a platform that misbehaves, with real workers, real
//! handlers and the real client over the store in memory; laws are checked at every step.
//!
//! A *story* is a list of lines, as of `tests/scenarios`; a seed draws one (`draw`), it is played to
//! a calm end (`play`), and one that breaks a law (`laws`, `agree`) is made as small as it gets and
//! printed (`shrink`). Such a story can be kept under `tests/scenarios`, where the binary plays it.
//!
//! `TALLYLIGHT_STORIES` plays more of them, `TALLYLIGHT_STORY` those from one seed on.

mod agree;
mod draw;
mod expect;
mod laws;
mod line;
mod platform;
mod play;
mod shrink;
#[path = "../../crates/cli/src/demo/story.rs"]
mod story;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use self::play::{Sabotage, Told, play};
use self::story::Story;
use crate::setting;

/// Stories that are played where nothing else is asked for.
const STORIES: u64 = 30;

/// Reads a story.
fn read(lines: &[String]) -> Story {
    Story::read(&lines.join("\n")).unwrap()
}

/// A story that breaks a law, made small.
#[derive(Debug)]
struct Broken {
    /// The story, and what is broken, in words.
    written: String,
    /// What happened in it.
    timeline: String,
}

/// Plays the story of a seed.
fn plays(seed: u64) -> Result<Told, Broken> {
    let lines = draw::story(seed);
    let told = play(&read(&lines), seed, Sabotage::default());
    let Some(broken) = &told.broken else { return Ok(told) };
    let smallest = shrink::shrink(&lines, seed, Sabotage::default(), broken);
    let told = play(&read(&smallest.lines), seed, Sabotage::default());
    Err(Broken { written: smallest.written(seed), timeline: told.timeline.join("\n") })
}

/// What many stories came to.
#[derive(Debug, Default)]
struct Sum {
    stories: u64,
    sessions: usize,
    steps: usize,
    requests: usize,
    passed: Duration,
    broken: Vec<Broken>,
}

/// Plays stories from a seed on, as many at a time as there are processors.
fn play_many(first: u64, count: u64) -> Sum {
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Sum::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let is_enough = sum.lock().unwrap().broken.len() >= 5;
                    if n >= count || is_enough {
                        return;
                    }
                    let told = plays(first.wrapping_add(n));
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(told);
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

impl Sum {
    fn add(&mut self, told: Result<Told, Broken>) {
        self.stories += 1;
        match told {
            Ok(told) => {
                self.sessions += told.sessions;
                self.steps += told.steps;
                self.requests += told.requests;
                self.passed += told.passed;
            }
            Err(broken) => self.broken.push(broken),
        }
    }
}

#[test]
fn whatever_happens_every_session_comes_to_its_true_end() {
    let first = setting("TALLYLIGHT_STORY").unwrap_or_else(|| rand::rng().random());
    let count = setting("TALLYLIGHT_STORIES").unwrap_or(STORIES);
    println!("stories from {first}, {count} of them");
    let begun = Instant::now();
    let Sum { stories, sessions, steps, requests, passed, broken } = play_many(first, count);
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = sessions as f64 * 60.0 / seconds;
    println!(
        "{stories} stories, {sessions} sessions, {steps} steps, {requests} requests, {} min of \
         virtual time in {seconds:.1} s: {rate:.0} sessions a minute",
        passed.as_secs() / 60
    );
    for story in &broken {
        println!("{}\n", story.timeline);
    }
    let written: Vec<&str> = broken.iter().map(|story| story.written.as_str()).collect();
    assert!(broken.is_empty(), "{} stories break a law:\n\n{}", broken.len(), written.join("\n"));
}

#[test]
fn a_story_and_its_seed_say_everything() {
    for seed in 0..2 {
        let story = read(&draw::story(seed));
        let told = [(); 2].map(|()| play(&story, seed, Sabotage::default()));
        assert_eq!(told[0], told[1], "seed {seed}");
    }
}

#[test]
fn the_scenarios_come_out_as_expected_in_virtual_time() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let mut played = 0;
    for file in std::fs::read_dir(scenarios).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let story = Story::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(play(&story, 1, Sabotage::default()).broken, None, "{}", path.display());
            played += 1;
        }
    }
    assert!(played >= 5, "{played}");
}

/// A story in which much happens.
const EVENTFUL: [&str; 9] = [
    "given quota 2",
    "network loses the reply to POST /streaming/streams",
    "product asks for A",
    "+9 encoder of A connects",
    "+4 network repeats all webhooks",
    "+11 encoder of A drops",
    "+6 encoder of A returns",
    "+5 portal renames_stream of A",
    "+7 product ends A",
];

/// How the eventful story breaks a law with a fault of ours, made small.
fn noticed(sabotage: Sabotage) -> shrink::Smallest {
    let lines = EVENTFUL.map(str::to_owned);
    assert_eq!(play(&read(&lines), 1, Sabotage::default()).broken, None);
    let broken = play(&read(&lines), 1, sabotage).broken;
    let broken = broken.unwrap_or_else(|| panic!("{sabotage:?} was not noticed"));
    shrink::shrink(&lines, 1, sabotage, &broken)
}

#[test]
fn handlers_that_never_look_first_are_noticed_by_a_story_of_two_lines() {
    let worker = worker::testing::Flaws { never_looks: true };
    let smallest = noticed(Sabotage { worker, ..Sabotage::default() });
    let told = smallest.written(1);
    assert!(smallest.broken.starts_with("objects: "), "{told}");
    assert_eq!(
        told.lines().skip(1).collect::<Vec<_>>(),
        [
            "network  loses the reply to POST /streaming/streams",
            "product  asks for A",
            "product  ends A",
            "expect   A is ended",
            "expect   A agrees with the platform",
        ],
        "{told}"
    );
}

#[test]
fn a_decision_that_forgets_to_wait_is_noticed_by_a_story_of_one_line() {
    let store = store::testing::Flaws { no_timers: true, ..Default::default() };
    let smallest = noticed(Sabotage { store, ..Sabotage::default() });
    let told = smallest.written(1);
    assert!(smallest.broken.starts_with("waits: "), "{told}");
    assert_eq!(smallest.lines, ["product asks for A"], "{told}");
}

#[test]
fn the_page_about_the_simulation_names_every_law_every_fault_and_every_platform() {
    let page = include_str!("../../docs/simulation.md");
    for (law, says) in laws::LAWS {
        assert!(page.contains(&format!("| `{law}` | {says} |")), "{law}: {says}");
    }
    for (fault, ..) in draw::FAULTS {
        assert!(page.contains(&format!("| {fault} |")), "{fault}");
    }
    for (switch, values) in draw::PLATFORMS {
        let values = values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>();
        let row = format!("| `{switch}` | {} |", values.join(", "));
        assert!(page.contains(&row), "{row}");
    }
}
