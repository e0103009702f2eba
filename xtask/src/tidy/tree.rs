//! The repository's text files, read once.

use std::{collections::BTreeMap, fs, path::Path};

use super::LookError;

/// Directories that hold nothing of the repository's own.
const SKIPPED: &[&str] = &["target", ".git", ".isles", "node_modules"];
/// Files of these kinds are read; of all others only the path is known.
const READ: &[&str] = &["rs", "md", "toml"];

/// Paths from the root, with `/`, and the texts of those that matter.
#[derive(Default)]
pub(super) struct Tree {
    paths: BTreeMap<String, Option<String>>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self, LookError> {
        let mut tree = Self::default();
        tree.enter(root, "")?;
        Ok(tree)
    }

    fn enter(&mut self, root: &Path, directory: &str) -> Result<(), LookError> {
        let unread = |path: &str| {
            let path = path.to_owned();
            move |source| LookError::Read { path, source }
        };
        for entry in fs::read_dir(root.join(directory)).map_err(unread(directory))? {
            let entry = entry.map_err(unread(directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            let kind = entry.file_type().map_err(unread(&path))?;
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                self.paths.insert(path.clone(), None);
                self.enter(root, &path)?;
            } else if kind.is_file() {
                let wanted = name.rsplit_once('.').is_some_and(|(_, kind)| READ.contains(&kind));
                let text = if wanted {
                    Some(fs::read_to_string(root.join(&path)).map_err(unread(&path))?)
                } else {
                    None
                };
                self.paths.insert(path, text);
            }
        }
        Ok(())
    }

    /// A tree as a test wants it.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| ((*path).to_owned(), Some((*text).to_owned()));
        Self { paths: files.iter().map(file).collect() }
    }

    /// Is there such a file or directory?
    pub(super) fn has(&self, path: &str) -> bool {
        self.paths.contains_key(path.trim_end_matches('/'))
    }

    /// One file's text.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.paths.get(path)?.as_deref()
    }

    /// The files of one kind (`rs`), with their texts.
    pub(super) fn texts(&self, kind: &str) -> impl Iterator<Item = (&str, &str)> {
        let ending = format!(".{kind}");
        self.paths.iter().filter_map(move |(path, text)| {
            Some((path.as_str(), text.as_deref()?)).filter(|_| path.ends_with(&ending))
        })
    }
}
