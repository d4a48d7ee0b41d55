//! Whether the receiver of a ring sleeps.
//!
//! A sender puts something into a ring and wakes the receiver only if it sleeps; the receiver says that it sleeps and
//! looks at the ring once more. Each writes one word and reads the other's: without a full barrier between, both
//! may read the old value, and the item waits for ever.
//!
//! ```text
//! sender                     receiver
//! push item                  asleep = true
//! barrier                    barrier
//! asleep? -> wake            ring empty? -> sleep
//! ```

use crate::sync::{Arc, AtomicBool, Ordering, fence};

/// Says whether its owner sleeps. Clones are of the same bell: one for the owner, the others for senders.
#[derive(Clone, Debug)]
pub struct Doorbell {
    /// owner: rw, senders: ro.
    asleep: Arc<AtomicBool>,
}

impl Doorbell {
    /// An owner that is awake.
    pub fn new() -> Self {
        Self {
            asleep: Arc::new(AtomicBool::new(false)),
        }
    }

    /// True when the owner has to be woken. By a sender, after it put its item into the ring.
    #[inline]
    pub fn is_asleep(&self) -> bool {
        // Pairs with the fence in `fall_asleep`; costs ~20 cycles per burst of handoffs.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed)
    }

    /// Says that the owner is about to sleep. By the owner, which then looks at its rings once more.
    #[inline]
    pub fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `is_asleep`.
        fence(Ordering::SeqCst);
    }

    /// Says that the owner is awake. By the owner.
    #[inline]
    pub fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn clones_are_of_one_bell() {
        let owner = Doorbell::default();
        let sender = owner.clone();
        assert!(!sender.is_asleep());
        owner.fall_asleep();
        assert!(sender.is_asleep());
        owner.wake_up();
        assert!(!sender.is_asleep());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// Fails when either fence is taken away.
    #[test]
    fn loom_an_item_is_seen_or_its_sender_rings() {
        loom::model(|| {
            let bell = Doorbell::new();
            let ring = Arc::new(AtomicBool::new(false));
            let (senders_bell, senders_ring) = (bell.clone(), Arc::clone(&ring));
            let sender = loom::thread::spawn(move || {
                senders_ring.store(true, Ordering::Release);
                senders_bell.is_asleep()
            });
            bell.fall_asleep();
            let seen = ring.load(Ordering::Acquire);
            let rung = sender.join().unwrap();
            assert!(seen || rung, "the item waits for ever");
        });
    }
}
