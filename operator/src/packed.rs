//! Objects as the cache keeps them: as text. A parsed tree takes about six times as much, because each nested member is
//! a node of its own, and most objects are looked at seldom.

use std::sync::Arc;

use serde_json::Value;

/// One object as JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Packed(Arc<str>);

impl Packed {
    /// Packs an object.
    pub(crate) fn of(object: &Value) -> Self {
        Self(object.to_string().into())
    }

    /// The object.
    pub(crate) fn open(&self) -> Value {
        // What was written as JSON is read as JSON; `null` would look like an object without members.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Whether `word` stands anywhere in it. For words that JSON does not escape: names, labels.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.0.contains(word)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_comes_out_as_it_went_in() {
        let object = json!({"a": {"b": [1, 2.5, null, true, "\u{1F600}\n\""]}, "c": {}, "n": u64::MAX});
        let packed = Packed::of(&object);
        assert_eq!(packed.open(), object);
        assert!(packed.mentions("null") && !packed.mentions("nothing"));
    }
}
