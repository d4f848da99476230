//! One layer: a tar archive with sorted entries, root as the owner and one fixed time, gzipped.

use std::{collections::BTreeMap, io::Write};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::image::{Blob, digest};

/// Media type of a layer (OCI image specification 1.1).
pub const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file that anybody may read, and run when `executable`.
    File {
        /// Its content.
        bytes: Vec<u8>,
        /// Mode 0755 instead of 0644.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points to.
        target: String,
    },
}

impl Entry {
    /// A readable file.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::File {
            bytes: text.as_bytes().to_vec(),
            executable: false,
        }
    }
}

/// Files by path, without a leading slash; parents are added.
pub type Tree = BTreeMap<String, Entry>;

/// A layer and the digest of its uncompressed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The compressed archive.
    pub blob: Blob,
    /// `sha256:…` of the archive before compression (`rootfs.diff_ids`).
    pub diff_id: String,
}

impl Layer {
    /// Packs `tree`; every entry gets the time `epoch` (seconds since 1970).
    ///
    /// # Errors
    /// When a path is too long for the archive.
    pub fn new(tree: &Tree, epoch: u64) -> std::io::Result<Self> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &with_parents(tree) {
            append(&mut archive, path, entry, epoch)?;
        }
        let bytes = archive.into_inner()?;
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .operating_system(255)
            .write(Vec::new(), Compression::best());
        gzip.write_all(&bytes)?;
        let blob = Blob {
            media_type: MEDIA_TYPE.to_owned(),
            bytes: gzip.finish()?,
        };
        Ok(Self {
            blob,
            diff_id: digest(&bytes),
        })
    }
}

fn with_parents(tree: &Tree) -> Tree {
    let mut all = tree.clone();
    for path in tree.keys() {
        for (at, _) in path.match_indices('/') {
            if let Some(parent) = path.get(..at) {
                all.entry(parent.to_owned()).or_insert(Entry::Directory);
            }
        }
    }
    all
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, entry: &Entry, epoch: u64) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(epoch);
    header.set_uid(0);
    header.set_gid(0);
    match entry {
        Entry::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, format!("{path}/"), std::io::empty())
        }
        Entry::File { bytes, executable } => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if *executable { 0o755 } else { 0o644 });
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes.as_slice())
        }
        Entry::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, path, target)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_their_files_and_two_packings_are_the_same() {
        let tree = Tree::from([
            ("a/b/c".to_owned(), Entry::text("x")),
            (
                "a/l".to_owned(),
                Entry::Link {
                    target: "b/c".to_owned(),
                },
            ),
        ]);
        let first = Layer::new(&tree, 1).expect("packs");
        assert_eq!(first, Layer::new(&tree, 1).expect("packs"));
        assert_ne!(
            first.blob.digest(),
            Layer::new(&tree, 2).expect("packs").blob.digest()
        );
        let archive = flate2::read::GzDecoder::new(first.blob.bytes.as_slice());
        let mut archive = tar::Archive::new(archive);
        let paths: Vec<String> = archive
            .entries()
            .expect("an archive")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .path()
                    .expect("a path")
                    .display()
                    .to_string()
            })
            .collect();
        assert_eq!(paths, ["a/", "a/b/", "a/b/c", "a/l"]);
    }
}
