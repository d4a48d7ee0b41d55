//! Peer to its table of ports.

use std::sync::Arc;

use super::IdentityIndex;
use super::ports::PortTable;

/// Identities of a page: a change of one copies 512 bytes.
const PAGE: usize = 64;

type Page = [Option<Arc<PortTable>>; PAGE];

/// The tables of all peers: one for those no rule names, others by identity. Pages are shared between
/// versions.
#[derive(Clone)]
pub(super) struct PeerMap {
    default: Arc<PortTable>,
    pages: Vec<Option<Arc<Page>>>,
}

impl PeerMap {
    /// Every peer has the same table.
    pub(super) const fn new(default: Arc<PortTable>) -> Self {
        Self {
            default,
            pages: Vec::new(),
        }
    }

    /// The table of a peer.
    #[inline]
    pub(super) fn ports(&self, peer: IdentityIndex) -> &PortTable {
        let (page, place) = place(peer);
        let page = self.pages.get(page).and_then(Option::as_deref);
        page.and_then(|page| page[place].as_deref())
            .unwrap_or(&self.default)
    }

    /// Gives a peer its own table, or that of all others.
    pub(super) fn set(&mut self, peer: IdentityIndex, ports: Option<Arc<PortTable>>) {
        let (page, place) = place(peer);
        if self.pages.len() <= page {
            if ports.is_none() {
                return;
            }
            self.pages.resize_with(page + 1, || None);
        }
        let slot = &mut self.pages[page];
        if slot.is_none() && ports.is_none() {
            return;
        }
        let entries = slot.get_or_insert_with(|| Arc::new([const { None }; PAGE]));
        let entries = Arc::make_mut(entries);
        entries[place] = ports;
        if entries.iter().all(Option::is_none) {
            *slot = None;
        }
        while self.pages.last().is_some_and(Option::is_none) {
            self.pages.pop();
        }
    }
}

#[inline]
const fn place(peer: IdentityIndex) -> (usize, usize) {
    (peer.0 as usize / PAGE, peer.0 as usize % PAGE)
}
