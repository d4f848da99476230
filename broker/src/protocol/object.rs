//! JSON objects as lists of members with their values as received: taking some out, putting others in, without reading
//! the values.

use super::json::{Kind, Reader, quoted};
use std::borrow::Cow;

/// The members of an object, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Object<'a> {
    /// Reads an object; `None` when the text is none.
    pub fn read(text: &'a str) -> Option<Self> {
        let mut reader = Reader::new(text);
        if reader.kind() != Ok(Kind::Object) {
            return None;
        }
        let mut members = Vec::new();
        reader
            .members(&mut |reader, name| {
                reader.kind()?;
                let range = reader.value()?;
                members.push((name, Cow::Borrowed(reader.slice(range))));
                Ok(())
            })
            .ok()?;
        reader.at_end().then_some(Self { members })
    }

    /// The value of the last member of this name, as received.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.members.iter().rev();
        found
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
    }

    /// The text of a member that is a string.
    pub fn string(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// Takes out every member of this name.
    pub fn remove(&mut self, name: &str) {
        self.members.retain(|(key, _)| key != name);
    }

    /// Puts a member last, in place of others of its name; `value` is JSON text.
    pub fn set(&mut self, name: &'a str, value: String) {
        self.remove(name);
        self.members.push((Cow::Borrowed(name), Cow::Owned(value)));
    }

    /// Puts a member first, in place of others of its name; `value` is JSON text.
    pub fn set_first(&mut self, name: &'a str, value: String) {
        self.remove(name);
        self.members.insert(0, (Cow::Borrowed(name), Cow::Owned(value)));
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_ref())
    }

    /// The values, as received.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(_, value)| value.as_ref())
    }

    /// True without members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// JSON text.
    pub fn text(&self) -> String {
        let members: Vec<String> = self
            .members
            .iter()
            .map(|(name, value)| format!("{}:{value}", quoted(name)))
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_received_and_members_in_their_order() {
        let text = r#" { "b" : 1e2, "a\u0041":{ "x":[1, 2] },"c":"\u00e9"} "#;
        let mut object = Object::read(text).unwrap();
        assert_eq!(
            (object.get("b"), object.string("c").as_deref()),
            (Some("1e2"), Some("é"))
        );
        object.remove("c");
        object.set_first("z", "7".to_owned());
        object.set("b", "8".to_owned());
        assert_eq!(object.text(), r#"{"z":7,"aA":{ "x":[1, 2] },"b":8}"#);
        for bad in ["[]", "{", r#"{"a":1} 7"#, ""] {
            assert_eq!(Object::read(bad), None, "{bad}");
        }
    }
}
