//! Lists that come in pages and are held as a whole. The guest says where they end, so they are bounded here.

use guestline_proto::v1;
use prost::Message;
use tonic::Streaming;

use crate::{DirEntry, Error, Group, Port, User, Vm};

/// Items of one list; a member of a group is one too. Far more than any guest has users, groups and listening sockets, and of
/// a directory's entries some 60 MB.
pub(crate) const MAX_ITEMS: usize = 128 * 1024;

/// Bytes of one list, as its pages were sent: 256 for each item, with its names.
pub(crate) const MAX_BYTES: usize = 32 * 1024 * 1024;

/// A page, as the agent sends it.
pub(crate) trait Page: Message + Default {
    /// What it is a page of.
    type Item;

    /// How many of [`MAX_ITEMS`] it is.
    fn count(&self) -> usize;

    /// As the caller gets them.
    fn items(self) -> Result<Vec<Self::Item>, Error>;
}

/// All pages.
pub(crate) async fn collect<P: Page>(
    vm: &Vm,
    mut pages: Streaming<P>,
) -> Result<Vec<P::Item>, Error> {
    let mut all = Vec::new();
    let (mut items, mut bytes) = (0, 0);
    while let Some(page) = pages.message().await.map_err(|status| vm.error(status))? {
        items += page.count();
        bytes += page.encoded_len();
        if items > MAX_ITEMS || bytes > MAX_BYTES {
            return Err(Error::ListTooLong {
                items: MAX_ITEMS,
                bytes: MAX_BYTES,
            });
        }
        all.extend(page.items()?);
    }
    Ok(all)
}

impl Page for v1::ListUsersResponse {
    type Item = User;

    fn count(&self) -> usize {
        self.users.len()
    }

    fn items(self) -> Result<Vec<User>, Error> {
        Ok(self.users.into_iter().map(User::from).collect())
    }
}

impl Page for v1::ListGroupsResponse {
    type Item = Group;

    fn count(&self) -> usize {
        let members = self.groups.iter().map(|group| group.members.len());
        self.groups.len() + members.sum::<usize>()
    }

    fn items(self) -> Result<Vec<Group>, Error> {
        Ok(self.groups.into_iter().map(Group::from).collect())
    }
}

impl Page for v1::ListPortsResponse {
    type Item = Port;

    fn count(&self) -> usize {
        self.ports.len()
    }

    fn items(self) -> Result<Vec<Port>, Error> {
        self.ports.into_iter().map(Port::try_from).collect()
    }
}

impl Page for v1::ListResponse {
    type Item = DirEntry;

    fn count(&self) -> usize {
        self.entries.len()
    }

    fn items(self) -> Result<Vec<DirEntry>, Error> {
        Ok(self.entries.into_iter().map(DirEntry::from).collect())
    }
}
