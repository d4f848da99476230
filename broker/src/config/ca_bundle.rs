//! The roots that one server is trusted by. Clients are kept by bundle and looked up at every call, so a bundle knows its
//! hash from the start.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// PEM of CA certificates; cheap to clone, to hash and, for a clone, to compare.
#[derive(Clone)]
pub struct CaBundle {
    pem: Arc<str>,
    hash: u64,
}

impl CaBundle {
    /// The PEM; empty for none.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl From<String> for CaBundle {
    fn from(pem: String) -> Self {
        Self {
            hash: BuildHasherDefault::<DefaultHasher>::default().hash_one(&pem),
            pem: pem.into(),
        }
    }
}

impl Default for CaBundle {
    fn default() -> Self {
        String::new().into()
    }
}

impl PartialEq for CaBundle {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.pem, &other.pem) || self.pem == other.pem)
    }
}

impl Eq for CaBundle {}

impl Hash for CaBundle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
