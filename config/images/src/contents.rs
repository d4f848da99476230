//! Images that only carry files: the OLM bundle and the catalog. Their digests follow from the files alone, so that the
//! generator can name them before anything is built or pushed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    image::{Image, Settings},
    layer::{Entry, Layer, Tree},
    layout::Published,
    platform::PLATFORMS,
};

/// Text files by path, relative to the root of the image.
pub type Texts = BTreeMap<String, String>;

/// The bundle image of `files` (`manifests/…`, `metadata/…`, `tests/…`); labels are the annotations of the bundle.
///
/// # Errors
/// When a path is too long for the archive.
pub fn bundle(
    version: &str,
    files: &Texts,
    annotations: &[(String, String)],
    epoch: u64,
) -> std::io::Result<Published> {
    carrier("bundle", version, files, annotations, epoch)
}

/// The catalog image of `files` (`configs/…`).
///
/// # Errors
/// When a path is too long for the archive.
pub fn catalog(version: &str, files: &Texts, epoch: u64) -> std::io::Result<Published> {
    let label = (
        "operators.operatorframework.io.index.configs.v1".to_owned(),
        "/configs".to_owned(),
    );
    carrier("catalog", version, files, &[label], epoch)
}

/// The labels of a bundle image: the members of `annotations` in `metadata/annotations.yaml`.
#[must_use]
pub fn labels(annotations: &Value) -> Vec<(String, String)> {
    let members = annotations
        .get("annotations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    members
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn carrier(
    name: &str,
    version: &str,
    files: &Texts,
    labels: &[(String, String)],
    epoch: u64,
) -> std::io::Result<Published> {
    let tree: Tree = files
        .iter()
        .map(|(path, text)| (path.clone(), Entry::text(text)))
        .collect();
    let layer = Layer::new(&tree, epoch)?;
    let settings = Settings {
        labels: labels.to_vec(),
        created: rfc3339(epoch),
        ..Settings::default()
    };
    // The files are the same on every platform; the runtime of any node finds its own entry.
    let images =
        PLATFORMS.map(|platform| Image::new(platform.architecture, &settings, std::slice::from_ref(&layer)));
    Ok(Published::new(name, version, images.to_vec(), Vec::new()))
}

/// `YYYY-MM-DDThh:mm:ssZ` of seconds since 1970 (proleptic Gregorian calendar).
#[must_use]
pub fn rfc3339(epoch: u64) -> String {
    let (mut days, seconds) = (epoch / 86_400, epoch % 86_400);
    let mut year = 1970_u64;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1_u64;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        days + 1
    )
}

/// Seconds since 1970 of a time that [`rfc3339`] wrote.
#[must_use]
pub fn epoch(time: &str) -> Option<u64> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Days before the civil date, counted in years that begin in March.
    let (years, months) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day - 1;
    let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(days.checked_sub(719_468)? * 86_400 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_219_199), "2026-11-20T23:59:59Z");
        for time in [0, 951_782_400, 1_795_219_199, 4_107_542_399] {
            assert_eq!(epoch(&rfc3339(time)), Some(time));
        }
        assert_eq!(epoch("yesterday"), None);
    }

    #[test]
    fn the_digest_of_a_bundle_follows_from_its_files_alone() {
        let files = |text: &str| Texts::from([("manifests/a.yaml".to_owned(), text.to_owned())]);
        let digest = |text: &str| bundle("1.0.0", &files(text), &[], 0).expect("packs").digest();
        assert_eq!(digest("a"), digest("a"));
        assert_ne!(digest("a"), digest("b"));
    }
}
