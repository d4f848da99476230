//! Standard output for log lines. Every call is audited by a line, and a write of its own for each was an eighth of the
//! router's time under load: lines are gathered for a moment and written together. Warnings and errors are written at
//! once. A process that is killed loses the lines of its last moment.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered.
const MOMENT: Duration = Duration::from_millis(20);
/// With more bytes waiting whoever logs writes them out itself, so that a reader that stops holds up who writes.
const MAX_WAITING: usize = 1 << 20;

/// Lines that wait, and who may write.
#[derive(Default)]
struct Output {
    lines: Mutex<Vec<u8>>,
    some: Condvar,
    writing: Mutex<()>,
}

static OUTPUT: Output = Output {
    lines: Mutex::new(Vec::new()),
    some: Condvar::new(),
    writing: Mutex::new(()),
};

impl Output {
    fn add(&self, bytes: &[u8]) {
        let waiting = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.is_empty() {
                self.some.notify_one();
            }
            lines.extend_from_slice(bytes);
            lines.len()
        };
        if waiting > MAX_WAITING {
            self.flush(&mut io::stdout());
        }
    }

    /// Writes everything that waits. Lines keep their order: one writes at a time.
    fn flush(&self, to: &mut impl Write) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        // Where nobody reads, nothing can be said.
        let _ = to.write_all(&lines).and_then(|()| to.flush());
    }

    fn run(&self) {
        loop {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let lines = self.some.wait_while(lines, |lines| lines.is_empty());
            let lines = lines.unwrap_or_else(PoisonError::into_inner);
            let gathering = |lines: &mut Vec<u8>| lines.len() < MAX_WAITING;
            drop(self.some.wait_timeout_while(lines, MOMENT, gathering));
            self.flush(&mut io::stdout());
        }
    }
}

/// Writes lines to standard output, most of them a moment later.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathered {
    at_once: bool,
}

impl Gathered {
    /// The writer; its thread runs for as long as the process. Without the thread every line is written at once.
    pub(super) fn start() -> Self {
        let thread = std::thread::Builder::new().name("log".to_owned());
        let started = thread.spawn(|| OUTPUT.run());
        Self {
            at_once: started.is_err(),
        }
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        OUTPUT.add(bytes);
        if self.at_once {
            flush();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Gathered {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Self {
        Self {
            at_once: self.at_once || *of.level() <= Level::WARN,
        }
    }
}

/// Writes what waits; to be called before the process ends.
pub fn flush() {
    OUTPUT.flush(&mut io::stdout());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_gathered_is_written_once_and_in_order() {
        let output = Output::default();
        for line in ["one\n", "two\n", "three\n"] {
            output.add(line.as_bytes());
        }
        let mut written = Vec::new();
        output.flush(&mut written);
        output.flush(&mut written);
        assert_eq!(String::from_utf8(written).unwrap(), "one\ntwo\nthree\n");
    }
}
