//! Pages of lists (data-plane.md 4.10). A cursor is the sealed last key, so that a page boundary survives changes.

use super::view::{Selection, View};
use crate::auth::keys::Keys;
use crate::auth::seal;
use crate::protocol::json::quoted;
use crate::upstreams::items::ItemKind;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex};

/// A page ends after this many bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of pages that a catalog keeps for those who ask next.
const MAX_KEPT: usize = 32 * 1024 * 1024;
/// Pages that are known by who asked for them; callers with a token have some of their own.
const MAX_ASKED: usize = 10_000;
const CURSOR_LIFE: u64 = 24 * 3600;
const PURPOSE: &str = "list-cursor";

#[derive(Serialize, Deserialize)]
struct Cursor {
    kind: String,
    filter: String,
    last: String,
    exp: u64,
}

/// A cursor that is not ours, is of another list or filter, or is too old: -32602.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor")]
pub struct BadCursor;

/// Settings of paging.
pub struct Paging<'a> {
    /// Keys of the seals.
    pub keys: &'a Keys,
    /// Items in one page.
    pub size: usize,
    /// Unix seconds.
    pub now: u64,
}

/// Pages that were made, for those who ask next and see the same; for as long as the catalog is.
#[derive(Default)]
pub struct KeptPages {
    pages: Mutex<Pages>,
    hasher: RandomState,
}

#[derive(Default)]
struct Pages {
    of: HashMap<Asked, Made>,
    /// By their hash: callers who see the same share them.
    texts: HashMap<u64, Bytes>,
    bytes: usize,
}

/// What tells pages apart.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    kind: ItemKind,
    audience: Audience,
    after: Option<String>,
}

/// What callers who see the same in one catalog have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Audience {
    virtual_server: Option<String>,
    /// SHA-256 of the caller's verified token: policies judge by its claims.
    token: Option<[u8; 32]>,
    stateless: bool,
}

impl Audience {
    fn of(selection: &Selection) -> Self {
        Self {
            virtual_server: selection.virtual_server.first().cloned(),
            token: selection.caller.as_ref().map(|caller| caller.digest),
            stateless: selection.stateless,
        }
    }
}

/// A page without its end.
#[derive(Clone)]
struct Made {
    /// JSON up to the end of the array.
    text: Bytes,
    /// The last name, when there are more.
    last: Option<Arc<str>>,
}

impl KeptPages {
    fn get(&self, asked: &Asked) -> Option<Made> {
        self.pages.lock().ok()?.of.get(asked).cloned()
    }

    /// Keeps a page; where there is no room for it all others go.
    fn keep(&self, asked: Asked, made: &Made) {
        let hash = self.hasher.hash_one(&made.text);
        let Ok(mut pages) = self.pages.lock() else { return };
        let pages = &mut *pages;
        let known = pages.texts.get(&hash).filter(|text| **text == made.text).cloned();
        let more = known.as_ref().map_or(made.text.len(), |_| 0);
        if pages.of.len() >= MAX_ASKED || pages.bytes + more > MAX_KEPT {
            pages.of.clear();
            pages.texts.clear();
            pages.bytes = 0;
        }
        let text = known.unwrap_or_else(|| made.text.clone());
        if let Entry::Vacant(place) = pages.texts.entry(hash) {
            place.insert(text.clone());
            pages.bytes += text.len();
        }
        let last = made.last.clone();
        pages.of.insert(asked, Made { text, last });
    }
}

/// The `result` of one list request.
pub struct Page {
    text: Bytes,
    end: String,
    /// It had been made before.
    pub kept: bool,
}

impl Page {
    /// Its length, bytes.
    pub fn length(&self) -> usize {
        self.text.len() + self.end.len()
    }

    /// JSON, in pieces of which the longest is not copied. `first` is JSON text of an object with members that come first.
    pub fn pieces(self, first: &str) -> [Bytes; 3] {
        let members = first.strip_suffix('}').filter(|open| open.len() > 1);
        let start = members.map(|open| format!("{open},"));
        let rest = usize::from(start.is_some());
        [
            start.unwrap_or_default().into(),
            self.text.slice(rest..),
            self.end.into(),
        ]
    }
}

/// One page of a list.
///
/// # Errors
/// [`BadCursor`].
pub fn page(
    view: &View<'_>,
    selection: &Selection,
    kind: ItemKind,
    cursor: Option<&str>,
    paging: &Paging<'_>,
) -> Result<Page, BadCursor> {
    let after = cursor
        .map(|text| open(text, kind, selection, paging))
        .transpose()?;
    let pages = &view.catalog().kept_pages;
    let asked = view.is_repeatable().then(|| Asked {
        kind,
        audience: Audience::of(selection),
        after: after.clone(),
    });
    let found = asked.as_ref().and_then(|asked| pages.get(asked));
    let kept = found.is_some();
    let made = found.unwrap_or_else(|| gathered(view, kind, after.as_deref(), paging));
    if let Some(asked) = asked.filter(|_| !kept) {
        pages.keep(asked, &made);
    }
    let next = made.last.as_deref().map(|last| Cursor {
        kind: kind.word().to_owned(),
        filter: fingerprint(selection),
        last: last.to_owned(),
        exp: paging.now + CURSOR_LIFE,
    });
    let end = next.map_or_else(
        || "}".to_owned(),
        |cursor| {
            format!(
                r#","nextCursor":{}}}"#,
                quoted(&seal::seal(paging.keys, PURPOSE, &cursor))
            )
        },
    );
    Ok(Page {
        text: made.text,
        end,
        kept,
    })
}

fn gathered(view: &View<'_>, kind: ItemKind, after: Option<&str>, paging: &Paging<'_>) -> Made {
    let mut entries = view.list(kind, after).peekable();
    let mut text = format!(r#"{{"{}":["#, kind.member());
    let (mut count, mut previous) = (0, None);
    while let Some(entry) = entries.peek() {
        let full =
            count >= paging.size || (count > 0 && text.len() + entry.definition.len() > MAX_PAGE_BYTES);
        if full {
            break;
        }
        if count > 0 {
            text.push(',');
        }
        text.push_str(&entry.definition);
        count += 1;
        previous = Some(&entry.published);
        entries.next();
    }
    text.push(']');
    Made {
        text: text.into(),
        last: previous.filter(|_| entries.peek().is_some()).map(Arc::clone),
    }
}

fn open(text: &str, kind: ItemKind, selection: &Selection, paging: &Paging<'_>) -> Result<String, BadCursor> {
    let cursor: Cursor = seal::open(paging.keys, PURPOSE, text).ok_or(BadCursor)?;
    let ours =
        cursor.kind == kind.word() && cursor.filter == fingerprint(selection) && cursor.exp > paging.now;
    ours.then_some(cursor.last).ok_or(BadCursor)
}

fn fingerprint(selection: &Selection) -> String {
    // Who asks, not with which token: a token that is renewed between two pages changes nothing.
    let (issuer, subject) = selection
        .caller
        .as_ref()
        .map_or(("", ""), |caller| caller.subject());
    let text = format!(
        "{:?}\0{:?}\0{:?}\0{issuer}\0{subject}\0{}",
        selection.capabilities, selection.virtual_server, selection.scope, selection.stateless
    );
    mcp_gateway_api::config::hash_of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(number: usize) -> Asked {
        let selection = Selection {
            virtual_server: vec![number.to_string()],
            ..Selection::default()
        };
        let audience = Audience::of(&selection);
        Asked {
            kind: ItemKind::Tool,
            audience,
            after: None,
        }
    }

    fn made(text: &str) -> Made {
        let text = Bytes::from(text.to_owned());
        Made { text, last: None }
    }

    fn sizes(kept: &KeptPages) -> (usize, usize, usize) {
        let pages = kept.pages.lock().unwrap();
        (pages.of.len(), pages.texts.len(), pages.bytes)
    }

    #[test]
    fn those_who_see_the_same_share_a_text() {
        let kept = KeptPages::default();
        kept.keep(asked(0), &made("same"));
        kept.keep(asked(1), &made("same"));
        kept.keep(asked(2), &made("other"));
        assert_eq!(sizes(&kept), (3, 2, 9));
        let texts = [0, 1, 2].map(|number| kept.get(&asked(number)).unwrap().text);
        assert_eq!(texts[0].as_ptr(), texts[1].as_ptr());
        assert_eq!(texts[2], "other");
        assert!(kept.get(&asked(3)).is_none());
    }

    #[test]
    fn s23_kept_pages_have_room_for_so_many_callers_and_bytes() {
        let kept = KeptPages::default();
        (0..MAX_ASKED).for_each(|number| kept.keep(asked(number), &made("same")));
        assert_eq!(sizes(&kept), (MAX_ASKED, 1, 4));
        kept.keep(asked(MAX_ASKED), &made("same"));
        assert_eq!(sizes(&kept), (1, 1, 4));

        let long = |letter: &str| letter.repeat(MAX_KEPT / 2);
        let kept = KeptPages::default();
        kept.keep(asked(0), &made(&long("a")));
        kept.keep(asked(1), &made(&long("b")));
        assert_eq!(sizes(&kept), (2, 2, MAX_KEPT));
        kept.keep(asked(2), &made("c"));
        assert_eq!(sizes(&kept), (1, 1, 1));
    }
}
