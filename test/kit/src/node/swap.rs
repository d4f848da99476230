//! The kubelet's atomic writer: the files of a Secret, ConfigMap or projected volume change all at once, by one rename of
//! the link `..data`. Readers never see a mixture of two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// The content of a volume: relative path → file.
pub(crate) type Files = BTreeMap<String, File>;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Its permissions, e.g. 0o644.
    pub(crate) mode: u32,
}

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `dir` show exactly `files`; says whether anything changed.
pub(crate) fn replace(dir: &Path, files: &Files) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if old.is_some() && &present(&dir.join(DATA))? == files {
        return Ok(false);
    }
    let version = format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = dir.join(&version);
    fs::create_dir(&fresh)?;
    for (path, file) in files {
        let target = super::rootfs::inside(&fresh, Path::new(path));
        target.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&target, &file.bytes)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    }
    let _ = fs::remove_file(dir.join(NEXT));
    symlink(&version, dir.join(NEXT))?;
    fs::rename(dir.join(NEXT), dir.join(DATA))?;
    links(dir, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// The files below `dir`, as they are on disk.
fn present(dir: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut open = vec![String::new()];
    while let Some(prefix) = open.pop() {
        for entry in fs::read_dir(dir.join(&prefix))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                open.push(path);
            } else {
                let file = File {
                    bytes: fs::read(entry.path())?,
                    mode: metadata.permissions().mode() & 0o7777,
                };
                files.insert(path, file);
            }
        }
    }
    Ok(files)
}

/// One visible link per first path component, and none that has nothing behind it.
fn links(dir: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| File {
            bytes: text.as_bytes().to_vec(),
            mode: 0o644,
        };
        list.iter()
            .map(|(path, text)| ((*path).to_owned(), file(text)))
            .collect()
    }

    #[test]
    fn a_volume_shows_exactly_its_files_through_one_link() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(replace(dir, &files(&[("a", "1"), ("sub/b", "2")])).unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
        let before = fs::read_link(dir.join(DATA)).unwrap();

        assert!(!replace(dir, &files(&[("a", "1"), ("sub/b", "2")])).unwrap());
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), before);

        assert!(replace(dir, &files(&[("c", "3")])).unwrap());
        assert!(!dir.join("a").exists() && !dir.join("sub").exists() && !dir.join(before).exists());
        assert_eq!(fs::read_to_string(dir.join("c")).unwrap(), "3");
    }

    #[test]
    fn a_reader_never_sees_a_mixture() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        replace(&path, &files(&[("a", "0"), ("b", "0")])).unwrap();
        let reader = path.clone();
        let reading = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while seen.len() < 5 {
                let version = reader.join(fs::read_link(reader.join(DATA)).unwrap());
                // The version's directory may go between the two looks: then nothing was seen.
                if let (Ok(a), Ok(b)) = (fs::read(version.join("a")), fs::read(version.join("b"))) {
                    assert_eq!(a, b);
                    seen.insert(a);
                }
            }
        });
        let mut number = 0;
        while !reading.is_finished() {
            number += 1;
            let text = number.to_string();
            replace(&path, &files(&[("a", &text), ("b", &text)])).unwrap();
        }
        reading.join().unwrap();
    }

    #[test]
    fn modes_are_set() {
        let dir = tempfile::tempdir().unwrap();
        let file = File {
            bytes: Vec::new(),
            mode: 0o400,
        };
        replace(dir.path(), &Files::from([("key".to_owned(), file)])).unwrap();
        let mode = fs::metadata(dir.path().join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
    }
}
