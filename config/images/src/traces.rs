//! What a program must not carry if two builds are to give one digest: where it was built (panics name source files) and
//! when (C has `__DATE__`, which compilers take from SOURCE_DATE_EPOCH when it is set).

use crate::contents::rfc3339;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Each of `folders` that `program` names, and each date of C that is not that of `epoch` (seconds since 1970).
#[must_use]
pub fn traces(program: &[u8], folders: &[String], epoch: u64) -> Vec<String> {
    let named = folders
        .iter()
        .filter(|folder| contains(program, folder.as_bytes()))
        .cloned();
    let release = date(&rfc3339(epoch));
    let other = dates(program).filter(|date| release.as_ref() != Some(date));
    let mut found: Vec<String> = named.chain(other).collect();
    found.sort();
    found.dedup();
    found
}

fn contains(program: &[u8], text: &[u8]) -> bool {
    !text.is_empty() && program.windows(text.len()).any(|window| window == text)
}

/// `Nov 21 2026` of `2026-11-21T…`; a day below ten has a blank before it.
fn date(time: &str) -> Option<String> {
    let mut parts = time.get(..10)?.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
    Some(format!("{month} {:>2} {year}", day.trim_start_matches('0')))
}

/// All strings of that form.
fn dates(program: &[u8]) -> impl Iterator<Item = String> {
    program.windows(11).filter_map(|window| {
        let [a, b, c, b' ', tens, ones, b' ', year @ ..] = window else {
            return None;
        };
        let day = (*tens == b' ' || tens.is_ascii_digit()) && ones.is_ascii_digit();
        let month = std::str::from_utf8(&[*a, *b, *c]).is_ok_and(|name| MONTHS.contains(&name));
        (day && month && year.iter().all(u8::is_ascii_digit))
            .then(|| String::from_utf8_lossy(window).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_793_577_600;

    #[test]
    fn a_program_of_the_release_carries_its_date_only_and_no_folder() {
        let program = b"\x7fELF built on Nov  2 2026\0/src/lib.rs\0Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(rfc3339(EPOCH), "2026-11-02T00:00:00Z");
        assert!(traces(program, &["/home/me/tree".to_owned()], EPOCH).is_empty());
    }

    #[test]
    fn a_folder_of_the_build_and_its_day_are_found() {
        let program = b"/home/me/tree/broker/src/run.rs:7\0built on Nov 22 2026, 08:04:00\0Nov 22 2026";
        let folders = ["/home/me/tree".to_owned(), "/home/me/.cargo".to_owned()];
        assert_eq!(traces(program, &folders, EPOCH), ["/home/me/tree", "Nov 22 2026"]);
    }
}
