//! What a failed test leaves behind: the log, the jobs, the platform's view, the processes' words.

use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use store::Store;

use super::TestSystem;

/// Most characters of a payload that are printed.
const PAYLOAD: usize = 400;

/// Last lines of the processes that are printed.
const LINES: usize = 60;

/// All events of the log, in the order of their commit.
pub(crate) async fn events(store: &Store) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    for slice in store.slices().slices() {
        let all = store.read_after(slice, 0, Timestamp::default(), i64::MAX).await.unwrap();
        events.extend(all);
    }
    events.sort_by_key(|event| (event.recorded_at, event.slice, event.position));
    events
}

/// Prints everything that may tell why a test failed. In a thread of its own: this one may be
/// inside a runtime, and is unwinding.
#[expect(clippy::print_stdout, reason = "the harness shows it where the test has failed")]
pub(crate) fn print(system: &TestSystem) {
    let lines: Vec<String> = std::thread::scope(|scope| {
        scope.spawn(|| gather(system)).join().unwrap_or_else(|_| vec!["no dump".to_owned()])
    });
    println!("{}", lines.join("\n"));
}

fn gather(system: &TestSystem) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (url, state) = (system.url.clone(), system.simulator.state());
    let (events, jobs, slices) = runtime.block_on(async {
        let store = Store::connect(&store::Config::new(url.clone())).await.unwrap();
        let database = super::Database::connect(&url).await;
        let slices = store.slice_status().await.unwrap();
        (events(&store).await, database.jobs_left().await, slices)
    });
    let mut lines = vec!["---- log".to_owned()];
    lines.extend(events.iter().map(line));
    lines.push("---- jobs left".to_owned());
    lines.extend(jobs.iter().map(|(kind, args)| format!("{kind} {args}")));
    lines.push("---- slices that are behind".to_owned());
    lines.extend(slices.iter().filter(|s| s.position < s.head).map(|s| format!("{s:?}")));
    lines.push("---- platform: requests and state".to_owned());
    lines.extend(system.simulator.requests().iter().map(|r| {
        let at = r.at.format("%T%.3f");
        format!("{at} {} {} {} -> {}", r.method, r.path, r.query, r.status)
    }));
    lines.push(state.to_string());
    lines.push("---- processes".to_owned());
    let output = system.output();
    let said: Vec<&str> = output.lines().collect();
    lines.extend(said[said.len().saturating_sub(LINES)..].iter().map(|&line| line.to_owned()));
    lines
}

fn line(event: &RecordedEvent) -> String {
    let payload: String = String::from_utf8_lossy(&event.payload).chars().take(PAYLOAD).collect();
    let at = event.recorded_at.format("%T%.3f");
    format!(
        "{at} {:>2}:{:<3} {} {} {payload}",
        event.slice, event.position, event.subject, event.event_type
    )
}
