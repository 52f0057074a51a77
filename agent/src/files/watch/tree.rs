//! Which watched directory is where: a tree of watch descriptors, so that the renaming of one moves all below it.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use nix::sys::inotify::WatchDescriptor;

#[derive(Debug)]
struct Node {
    /// `None`: the root.
    parent: Option<WatchDescriptor>,
    name: OsString,
}

/// The watched directories.
#[derive(Debug, Default)]
pub(super) struct WatchedTree {
    nodes: HashMap<WatchDescriptor, Node>,
    children: HashMap<WatchDescriptor, HashMap<OsString, WatchDescriptor>>,
    root: Option<WatchDescriptor>,
}

impl WatchedTree {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn is_root(&self, directory: WatchDescriptor) -> bool {
        self.root == Some(directory)
    }

    pub(super) fn insert_root(&mut self, directory: WatchDescriptor) {
        let node = Node {
            parent: None,
            name: OsString::new(),
        };
        self.nodes.insert(directory, node);
        self.root = Some(directory);
    }

    /// Puts a directory below another one; one that is known moves there. Whether it is new.
    pub(super) fn insert(
        &mut self,
        directory: WatchDescriptor,
        parent: WatchDescriptor,
        name: &OsStr,
    ) -> bool {
        if self.is_root(directory) || !self.nodes.contains_key(&parent) {
            return false;
        }
        let known = self.detach(directory);
        let node = Node {
            parent: Some(parent),
            name: name.into(),
        };
        self.nodes.insert(directory, node);
        let siblings = self.children.entry(parent).or_default();
        siblings.insert(name.into(), directory);
        !known
    }

    pub(super) fn child(&self, parent: WatchDescriptor, name: &OsStr) -> Option<WatchDescriptor> {
        self.children.get(&parent)?.get(name).copied()
    }

    /// Where it is, relative to the root; `None` if it is not watched.
    pub(super) fn path(&self, directory: WatchDescriptor) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut node = self.nodes.get(&directory)?;
        while let Some(parent) = node.parent {
            names.push(&node.name);
            // No circles: the kernel moves no directory below itself, and late news of a move may not make one.
            if names.len() > self.nodes.len() {
                return None;
            }
            node = self.nodes.get(&parent)?;
        }
        Some(names.into_iter().rev().collect())
    }

    /// Forgets a directory that the kernel does not watch any more.
    pub(super) fn forget(&mut self, directory: WatchDescriptor) {
        self.detach(directory);
        self.nodes.remove(&directory);
        self.children.remove(&directory);
    }

    /// A directory and all that are known below it.
    pub(super) fn with_all_below(&self, directory: WatchDescriptor) -> Vec<WatchDescriptor> {
        let mut all = vec![directory];
        let mut at = 0;
        while at < all.len() && all.len() <= self.nodes.len() {
            let below = self
                .children
                .get(&all[at])
                .into_iter()
                .flat_map(HashMap::values);
            all.extend(below.copied());
            at += 1;
        }
        all
    }

    /// Takes it from its parent. Whether it is known.
    fn detach(&mut self, directory: WatchDescriptor) -> bool {
        let Some(node) = self.nodes.get(&directory) else {
            return false;
        };
        if let Some(siblings) = node.parent.and_then(|parent| self.children.get_mut(&parent))
            // Another may have taken the name since.
            && siblings.get(&node.name) == Some(&directory)
        {
            siblings.remove(&node.name);
        }
        true
    }
}
