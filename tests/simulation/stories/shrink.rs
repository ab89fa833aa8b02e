//! Makes a story that breaks a law as small as it gets, and writes it in the words of
//! `tests/scenarios`.
//!
//! *Small* is: no line can be left out, and no pause be halved, without the same law holding. What a
//! line's pause was is added to the next one when the line goes, so that the rest happens when it
//! did. Not its job: finding a story that breaks a law.

use super::play::{Sabotage, Told, play};
use super::story::{Story, What};

/// Stories that are tried at most.
const TRIES: usize = 150;

/// Characters of what is broken that a person reads.
const MOST: usize = 400;

/// A story that breaks a law, and how.
pub(super) struct Smallest {
    /// Its lines.
    pub(super) lines: Vec<String>,
    /// What is broken.
    pub(super) broken: String,
}

/// Makes a story smaller that breaks a law.
pub(super) fn shrink(lines: &[String], seed: u64, sabotage: Sabotage, broken: &str) -> Smallest {
    let mut shrink = Shrink {
        seed,
        sabotage,
        law: law(broken).to_owned(),
        tries: 0,
        best: Smallest { lines: lines.to_vec(), broken: broken.to_owned() },
    };
    shrink.leave_out_void();
    loop {
        let before = shrink.best.lines.clone();
        shrink.leave_out();
        shrink.hasten();
        if shrink.best.lines == before || shrink.tries >= TRIES {
            return shrink.best;
        }
    }
}

/// The name of the law that is broken.
fn law(broken: &str) -> &str {
    broken.split(':').next().unwrap_or(broken)
}

struct Shrink {
    seed: u64,
    sabotage: Sabotage,
    law: String,
    tries: usize,
    best: Smallest,
}

impl Shrink {
    /// Leaves out what could not be done.
    fn leave_out_void(&mut self) {
        let Ok(story) = Story::read(&self.best.lines.join("\n")) else { return };
        let given = self.best.lines.iter().filter(|line| line.starts_with("given ")).count();
        let mut lines = self.best.lines.clone();
        for n in play(&story, self.seed, self.sabotage).void.into_iter().rev() {
            lines = without(&lines, given + n, given + n + 1);
        }
        self.breaks(lines);
    }

    /// Leaves out halves, quarters and so on, down to single lines.
    fn leave_out(&mut self) {
        let mut size = self.best.lines.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.lines.len() {
                let to = (from + size).min(self.best.lines.len());
                if !self.breaks(without(&self.best.lines, from, to)) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    /// Halves pauses.
    fn hasten(&mut self) {
        for n in 0..self.best.lines.len() {
            if !self.pauses(n, |_| 0) {
                while self.pauses(n, |pause| pause / 2) {}
            }
        }
    }

    /// Changes the pause of a line, if there is one and the law breaks all the same.
    fn pauses(&mut self, n: usize, change: impl Fn(u32) -> u32) -> bool {
        let (pause, line) = paused(&self.best.lines[n]);
        let mut lines = self.best.lines.clone();
        lines[n] = with_pause(change(pause), line);
        pause > 0 && self.breaks(lines)
    }

    /// Takes a story if it breaks the same law.
    fn breaks(&mut self, lines: Vec<String>) -> bool {
        if self.tries >= TRIES {
            return false;
        }
        self.tries += 1;
        let Ok(story) = Story::read(&lines.join("\n")) else { return false };
        let Told { broken: Some(broken), .. } = play(&story, self.seed, self.sabotage) else {
            return false;
        };
        let is_same = law(&broken) == self.law;
        if is_same {
            self.best = Smallest { lines, broken };
        }
        is_same
    }
}

/// The lines without some; what they paused for goes to the next one.
fn without(lines: &[String], from: usize, to: usize) -> Vec<String> {
    let pauses: u32 = lines[from..to].iter().map(|line| paused(line).0).sum();
    let mut left: Vec<String> = lines[..from].iter().chain(&lines[to..]).cloned().collect();
    if let Some(next) = left.get_mut(from) {
        let (pause, line) = paused(next);
        *next = with_pause(pause + pauses, line);
    }
    left
}

/// The seconds that a line begins with, and the rest of it.
fn paused(line: &str) -> (u32, &str) {
    let split = line.strip_prefix('+').and_then(|rest| rest.split_once(' '));
    match split {
        Some((seconds, line)) => (seconds.parse().unwrap_or_default(), line),
        None => (0, line),
    }
}

fn with_pause(seconds: u32, line: &str) -> String {
    // Nothing pauses before what is given.
    let pauses = seconds > 0 && !line.starts_with("given ");
    if pauses { format!("+{seconds} {line}") } else { line.to_owned() }
}

impl Smallest {
    /// The story as a file of `tests/scenarios`, with what is expected in the end.
    pub(super) fn written(&self, seed: u64) -> String {
        let broken: String = self.broken.chars().take(MOST).collect();
        let mut text = vec![format!("# Seed {seed} breaks a law: {broken}")];
        for line in &self.lines {
            let (pause, rest) = paused(line);
            let (who, what) = rest.split_once(' ').unwrap_or((rest, ""));
            let pause = if pause > 0 { format!("+{pause} ") } else { String::new() };
            text.push(format!("{pause}{who:<8} {what}"));
        }
        let story = Story::read(&self.lines.join("\n")).unwrap_or_default();
        for step in &story.steps {
            if let What::Ask { session, .. } = &step.what {
                text.push(format!("product  ends {session}"));
                text.push(format!("expect   {session} is ended"));
                text.push(format!("expect   {session} agrees with the platform"));
            }
        }
        text.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_leaves_its_time_to_what_follows() {
        let lines =
            ["given quota 1", "+3 product asks for A", "+4 worker dies", "+5 network is well"];
        let lines = lines.map(str::to_owned);
        assert_eq!(
            without(&lines, 1, 3),
            ["given quota 1", "+12 network is well"].map(str::to_owned)
        );
        assert_eq!(without(&lines, 3, 4).len(), 3);
    }
}
