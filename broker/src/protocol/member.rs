//! Names of the members that decide where a message goes. Each may stand there once and in its own spelling, because some
//! servers match names without case and would read another value than the one that was judged.

use mcp_gateway_api::member_names::are_alike;

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

/// True for a name that some servers take for one of `read`.
pub(super) fn is_disguised(read: &[&str], name: &str) -> bool {
    !read.contains(&name) && read.iter().any(|read| are_alike(read, name))
}

/// True for one of `read` that was there before, or that is disguised; other names are nobody's concern here.
pub(super) fn is_flawed(read: &[&str], seen: &mut Seen, name: &str) -> bool {
    if read.contains(&name) {
        seen.add(name)
    } else {
        is_disguised(read, name)
    }
}
