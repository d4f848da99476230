//! What the kit tells the person who waits: one line when a long step begins (with its last duration), one when it ends.
//! Everything goes to standard error, so that standard output stays the command's own.

use std::io::Write;
use std::time::{Duration, Instant};

/// Prints one line on standard error.
pub(crate) fn say(line: impl AsRef<str>) {
    let mut err = std::io::stderr().lock();
    // A closed standard error must not stop a test run.
    let _ = writeln!(err, "{}", line.as_ref());
}

/// A duration the way people say it: `0.4 s`, `12 s`, `3 min 20 s`.
#[must_use]
pub(crate) fn human(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=99 => format!("{whole} s"),
        _ => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// The line printed before a step: what it does and how long it took last time (`None`: never done here).
#[must_use]
pub(crate) fn start_line(what: &str, last: Option<Duration>) -> String {
    match last {
        Some(last) => format!("==> {what} (last time: {})", human(last)),
        None => format!("==> {what} (first time here)"),
    }
}

/// The line printed after a step.
#[must_use]
pub(crate) fn end_line(what: &str, took: Duration) -> String {
    format!("    {what}: done in {}", human(took))
}

/// Measures a step and says when it is done.
#[derive(Debug)]
pub(crate) struct Step {
    what: String,
    begun: Instant,
}

impl Step {
    /// Begins a short step silently; [`Step::done`] prints the one line.
    #[must_use]
    pub(crate) fn quiet(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            begun: Instant::now(),
        }
    }

    /// Prints the step with its duration and returns the duration.
    pub(crate) fn done(self) -> Duration {
        let took = self.begun.elapsed();
        say(format!("    {:>7}  {}", human(took), self.what));
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(human(Duration::from_millis(420)), "0.4 s");
        assert_eq!(human(Duration::from_secs(12)), "12 s");
        assert_eq!(human(Duration::from_secs(200)), "3 min 20 s");
    }

    #[test]
    fn a_step_says_how_long_it_took_last_time() {
        assert_eq!(
            start_line("Building etcd", None),
            "==> Building etcd (first time here)"
        );
        let line = start_line("Building etcd", Some(Duration::from_secs(200)));
        assert_eq!(line, "==> Building etcd (last time: 3 min 20 s)");
        assert_eq!(
            end_line("Building etcd", Duration::from_secs(11)),
            "    Building etcd: done in 11 s"
        );
    }
}
