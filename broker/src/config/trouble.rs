//! Why a server that the gateway starts or bridges itself cannot be reached: what HTTP between the two would not say.
//! Set by its bridge, read when its connection reports a failure.

use std::sync::{Arc, Mutex};

/// Shared by a server's config and its bridge.
#[derive(Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// What is wrong; the last word counts. No output of the server and no value of a variable belongs into it.
    pub fn set(&self, text: String) {
        if let Ok(mut trouble) = self.0.lock() {
            *trouble = Some(text);
        }
    }

    /// All is well again.
    pub fn clear(&self) {
        if let Ok(mut trouble) = self.0.lock() {
            *trouble = None;
        }
    }

    /// What is wrong, if anything is.
    pub fn text(&self) -> Option<String> {
        self.0.lock().ok().and_then(|trouble| trouble.clone())
    }
}
