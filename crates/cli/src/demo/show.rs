//! What the demonstration prints: the log as it grows, a progress bar where it waits, the summary.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use domain::event::RecordedEvent;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use store::{Rebuilt, SealingKey, Store};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::script::Summary;
use crate::narrate::{self, Tail};
use crate::output::say;

/// How often the log is asked for more.
const EVERY: Duration = Duration::from_millis(50);

/// Prints one line of the frame around the show.
pub(crate) fn line(text: &str) {
    say(format!("\n{text}"));
}

/// Prints the log while the session runs.
pub(crate) struct Show {
    begun: Instant,
    bar: ProgressBar,
    webhooks: Arc<Mutex<Vec<RecordedEvent>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Show {
    /// Begins to print.
    pub(crate) fn begin(store: Store, sealing: Option<SealingKey>) -> Self {
        say("");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        let webhooks = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let printer = Printer {
            begun,
            bar: bar.clone(),
            webhooks: webhooks.clone(),
            tail: Tail::from_start(sealing),
            store,
        };
        let task = tokio::spawn(printer.run(stop.clone()));
        Self { begun, bar, webhooks, stop, task }
    }

    /// Prints a line as it is.
    pub(crate) fn told(&self, text: &str) {
        print(&self.bar, text);
    }

    /// Prints what happens outside of Tallylight.
    pub(crate) fn say(&self, text: &str) {
        print(&self.bar, &format!("{} ENCODER   {text}", clock(self.begun)));
    }

    /// Shows what is waited for.
    pub(crate) fn wait_for(&self, why: &str) {
        self.bar.set_style(style("{spinner} {msg} .."));
        self.bar.set_message(why.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Shows that time passes: `span` really, `seconds` of the session's.
    pub(crate) async fn progress(&self, span: Duration, seconds: f64, why: &str) {
        self.bar.disable_steady_tick();
        self.bar.set_style(style("  {bar:24} {pos}/{len} s  {msg}"));
        self.bar.set_message(why.to_owned());
        // Whole seconds, for people.
        let whole = Duration::from_secs_f64(seconds).as_secs();
        self.bar.set_length(whole);
        for second in 0..whole {
            self.bar.set_position(second);
            tokio::time::sleep(span.div_f64(seconds)).await;
        }
        self.bar.set_position(whole);
    }

    /// Stops printing and returns the webhooks of the log, in order.
    pub(crate) async fn end(self) -> Result<Vec<RecordedEvent>> {
        self.stop.cancel();
        self.task.await??;
        self.bar.finish_and_clear();
        let mut webhooks = self.webhooks.lock().await;
        Ok(std::mem::take(&mut *webhooks))
    }
}

/// The task that follows the log.
struct Printer {
    begun: Instant,
    bar: ProgressBar,
    webhooks: Arc<Mutex<Vec<RecordedEvent>>>,
    tail: Tail,
    store: Store,
}

impl Printer {
    async fn run(mut self, stop: CancellationToken) -> Result<()> {
        loop {
            let last = stop.is_cancelled();
            for event in self.tail.next(&self.store).await? {
                if let Some(told) = narrate::tell(&event) {
                    print(&self.bar, &format!("{} {told}", clock(self.begun)));
                }
                if event.event_type == "WebhookReceived" {
                    self.webhooks.lock().await.push(event);
                }
            }
            if last {
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

/// Prints the end: what became of the session and of the rebuild.
pub(crate) fn summary(
    summary: &Summary,
    rebuilt: Rebuilt,
    rows: i64,
    identical: bool,
    took: Duration,
) {
    say(format!(
        "  {} events folded to {rows} rows: {}",
        rebuilt.events,
        if identical { "identical, and nothing was enqueued" } else { "DIFFERENT from before" }
    ));
    line("The session:");
    say(format!("  status     {}", summary.status));
    say(format!("  went       {}", summary.moments.join(" > ")));
    for (n, (video, status, duration)) in summary.parts.iter().enumerate() {
        say(format!("  part {}     video {video} {status}, {duration} ms", n + 1));
        if let Some(gap) = summary.gap_ms.filter(|_| n == 0) {
            say(format!("  gap        {gap} ms"));
        }
    }
    say(format!("  all in     {:.1} s", took.as_secs_f32()));
    say("");
}

/// Prints above the bar on a terminal, plainly elsewhere.
fn print(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() {
        say(text);
    } else {
        bar.println(text);
    }
}

fn clock(begun: Instant) -> String {
    format!("{:>7.2}s", begun.elapsed().as_secs_f32())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
