//! JSON that two readers cannot understand differently: no object in it names a member twice. (serde_json keeps the last
//! one, others the first.)

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Error, Map, Value};

use crate::member_names::folded;

/// When two member names count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameName {
    /// When they are equal.
    Equal,
    /// Also when they differ in case only ([`folded`]): some readers do not look at it.
    IgnoringCase,
}

/// Reads one value.
///
/// # Errors
/// What is no JSON, is nested deeper than serde_json's limit, or names a member twice.
pub fn read(text: &[u8], same: SameName) -> Result<Value, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Reader(same).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Reader(SameName);

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without doubled members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(member) = members.next_element_seed(self)? {
            read.push(member);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        let mut spelled = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            let doubled = match self.0 {
                SameName::Equal => read.contains_key(&name),
                SameName::IgnoringCase => !spelled.insert(folded(&name)),
            };
            if doubled {
                return Err(A::Error::custom("a member occurs twice"));
            }
            let member = members.next_value_seed(self)?;
            read.insert(name, member);
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_name_is_refused_at_any_depth_and_by_its_rule() {
        let reads = |text: &str, same| read(text.as_bytes(), same).is_ok();
        for (text, equal, ignoring_case) in [
            (r#"{"a":1,"b":[null,true,-1,2.5,"x",{"a":{}}]}"#, true, true),
            (r#"{"a":1,"A":2}"#, true, false),
            (r#"[{"b":{"\u0061":1,"a":2}}]"#, false, false),
            (r#"{"\u00e4":1,"\u00c4":2}"#, true, false),
            (r#"{"a":1} {"a":1}"#, false, false),
            ("", false, false),
        ] {
            assert_eq!(reads(text, SameName::Equal), equal, "{text}");
            assert_eq!(reads(text, SameName::IgnoringCase), ignoring_case, "{text}");
        }
        let text = r#"{"a":[1,-2,0.5,null,"x",{"b":true}]}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read(text.as_bytes(), SameName::Equal).unwrap(), expected);
    }
}
