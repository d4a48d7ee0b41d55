//! Which port has which id and which XSK slots. Knows no kernel.

use std::collections::BTreeMap;

use weft_xdp_progs::SlotRange;
use weft_xdp_progs::intf::SLOTS_MAX;

/// Port ids are below this. Pods per node are 110 by default and 500 in the largest clusters; 1,024
/// leaves room for ids that are not given out again at once.
pub const PORTS_MAX: u16 = 1024;

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Every id is taken.
    #[error("all {PORTS_MAX} ports are bound")]
    Ports,
    /// No run of free slots is long enough.
    #[error("no {0} neighbouring socket slots of {SLOTS_MAX} are free")]
    Slots(u32),
}

/// An id and its slots, not yet taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Port id.
    pub id: u16,
    /// Slots.
    pub slots: SlotRange,
}

/// The ports by id. `T` is whatever belongs to one.
#[derive(Debug)]
pub struct Registry<T> {
    ports: BTreeMap<u16, (SlotRange, T)>,
    /// Searches start after what was given out last, so that an id or slot that was just freed is
    /// the last to be used again: whoever still holds the old one cannot hit the new port.
    next_id: u16,
    next_slot: u32,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            ports: BTreeMap::new(),
            next_id: 0,
            next_slot: 0,
        }
    }
}

impl<T> Registry<T> {
    /// Finds an id and `queues` neighbouring slots.
    ///
    /// # Errors
    /// When either is used up.
    pub fn place(&self, queues: u32) -> Result<Place, Full> {
        let id = (0..PORTS_MAX)
            .map(|step| (self.next_id + step) % PORTS_MAX)
            .find(|id| !self.ports.contains_key(id))
            .ok_or(Full::Ports)?;
        let base = self
            .free_run(self.next_slot, queues)
            .or_else(|| self.free_run(0, queues))
            .ok_or(Full::Slots(queues))?;
        Ok(Place {
            id,
            slots: SlotRange { base, queues },
        })
    }

    /// Takes a place that [`Registry::place`] found since the last change.
    pub fn insert(&mut self, place: Place, port: T) {
        let old = self.ports.insert(place.id, (place.slots, port));
        assert!(old.is_none(), "port id {} was taken already", place.id);
        self.next_id = (place.id + 1) % PORTS_MAX;
        self.next_slot = (place.slots.base + place.slots.queues) % SLOTS_MAX;
    }

    /// Frees a port's id and slots.
    pub fn remove(&mut self, id: u16) -> Option<(SlotRange, T)> {
        self.ports.remove(&id)
    }

    /// The port with this id.
    pub fn get(&self, id: u16) -> Option<&T> {
        self.ports.get(&id).map(|(_, port)| port)
    }

    /// The port with this id, to change.
    pub fn get_mut(&mut self, id: u16) -> Option<&mut T> {
        self.ports.get_mut(&id).map(|(_, port)| port)
    }

    /// All ports, by id.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.ports.values().map(|(_, port)| port)
    }

    /// All ids.
    pub fn ids(&self) -> Vec<u16> {
        self.ports.keys().copied().collect()
    }

    /// The first run of free slots at or after `from`.
    fn free_run(&self, from: u32, queues: u32) -> Option<u32> {
        let mut taken: Vec<SlotRange> = self.ports.values().map(|(slots, _)| *slots).collect();
        taken.sort_unstable_by_key(|slots| slots.base);
        let mut start = from;
        for slots in taken {
            if slots.base.saturating_sub(start) >= queues && slots.base >= start {
                break;
            }
            start = start.max(slots.base + slots.queues);
        }
        start
            .checked_add(queues)
            .is_some_and(|end| end <= SLOTS_MAX)
            .then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(registry: &mut Registry<()>, queues: u32) -> Place {
        let place = registry.place(queues).unwrap();
        registry.insert(place, ());
        place
    }

    #[test]
    fn ids_and_slots_are_handed_out_in_turn() {
        let mut registry = Registry::default();
        assert_eq!(
            add(&mut registry, 1),
            Place {
                id: 0,
                slots: SlotRange { base: 0, queues: 1 }
            }
        );
        assert_eq!(
            add(&mut registry, 4),
            Place {
                id: 1,
                slots: SlotRange { base: 1, queues: 4 }
            }
        );
        registry.remove(0);
        let third = add(&mut registry, 1);
        assert_eq!(
            (third.id, third.slots.base),
            (2, 5),
            "the freed place rests"
        );
        assert_eq!(registry.ids(), [1, 2]);
    }

    #[test]
    fn freed_places_are_found_again_after_the_end() {
        let mut registry = Registry::default();
        for _ in 0..PORTS_MAX {
            add(&mut registry, 4);
        }
        assert_eq!(registry.place(1), Err(Full::Ports));
        registry.remove(17);
        let again = add(&mut registry, 4);
        assert_eq!((again.id, again.slots.base), (17, 17 * 4));
    }

    #[test]
    fn slots_must_be_neighbours() {
        let mut registry = Registry::default();
        add(&mut registry, SLOTS_MAX - 4);
        let two = add(&mut registry, 2);
        let last = add(&mut registry, 2);
        registry.remove(two.id);
        assert_eq!(registry.place(4), Err(Full::Slots(4)));
        registry.remove(last.id);
        assert_eq!(registry.place(4).unwrap().slots.base, SLOTS_MAX - 4);
        assert_eq!(registry.place(SLOTS_MAX), Err(Full::Slots(SLOTS_MAX)));
        assert_eq!(registry.place(u32::MAX), Err(Full::Slots(u32::MAX)));
    }

    #[test]
    fn no_slot_is_ever_given_twice() {
        // Adds and removes in a fixed, irregular order.
        let mut registry = Registry::default();
        let mut held: Vec<Place> = Vec::new();
        let mut state = 0x2545_f491_u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let pick = state >> 16;
            if pick % 5 < 3 && held.len() < 700 {
                if let Ok(place) = registry.place(pick % 17 + 1) {
                    let end = place.slots.base + place.slots.queues;
                    assert!(end <= SLOTS_MAX);
                    for other in &held {
                        assert_ne!(other.id, place.id);
                        let other_end = other.slots.base + other.slots.queues;
                        assert!(end <= other.slots.base || other_end <= place.slots.base);
                    }
                    registry.insert(place, ());
                    held.push(place);
                }
            } else if !held.is_empty() {
                let gone = held.swap_remove(pick as usize % held.len());
                assert!(registry.remove(gone.id).is_some());
            }
        }
    }
}
