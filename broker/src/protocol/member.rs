//! Names of the members that decide where a message goes. Each may stand there once and in its own spelling, because some
//! servers match names without case and would read another value than the one that was judged.

use super::json::quoted;
use mcp_gateway_api::member_names::are_alike;

/// Longest name that an answer repeats, characters.
const MAX_SHOWN: usize = 64;

/// Why a message is refused: one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The member, with the way to it: `params.name`.
    pub member: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Flaw {
    /// A flaw of the member `name` at the end of the way `at`.
    pub(super) fn new(at: &str, name: &str, problem: &'static str) -> Self {
        let name: String = name.chars().take(MAX_SHOWN).collect();
        Self {
            member: format!("{at}{name}"),
            problem,
        }
    }

    /// A member that is there a second time.
    pub(super) fn twice(at: &str, name: &str) -> Self {
        Self::new(at, name, "occurs twice")
    }

    /// `data` of the error, JSON text.
    pub fn data(&self) -> String {
        let (member, problem) = (quoted(&self.member), quoted(self.problem));
        format!(r#"{{"member":{member},"problem":{problem}}}"#)
    }
}

/// Names that were there.
#[derive(Default)]
pub(super) struct Seen(Vec<String>);

impl Seen {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Remembers a name; true when it, or one that some servers take for it, was there before.
    pub(super) fn add(&mut self, name: &str) -> bool {
        if self.0.iter().any(|other| are_alike(other, name)) {
            return true;
        }
        self.0.push(name.to_owned());
        false
    }
}

/// What is wrong with a name that some servers take for one of `read`.
pub(super) fn disguised(at: &str, read: &[&str], name: &str) -> Option<Flaw> {
    if read.contains(&name) {
        return None;
    }
    let meant = read.iter().find(|read| are_alike(read, name))?;
    Some(Flaw::new(at, meant, "is spelt differently"))
}

/// What is wrong with one of `read` that was there before, or that is disguised; other names are nobody's concern here.
pub(super) fn flaw(at: &str, read: &[&str], seen: &mut Seen, name: &str) -> Option<Flaw> {
    if read.contains(&name) {
        seen.add(name).then(|| Flaw::twice(at, name))
    } else {
        disguised(at, read, name)
    }
}
