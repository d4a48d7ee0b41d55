//! Where a worker sleeps: one epoll instance over its sockets and its doorbell.
//!
//! Sockets are registered one-shot. While a queue is served the kernel's per-packet wake-up finds
//! it disarmed and returns at once; it is armed again only when the queue has been idle.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Events taken by one look; the rest comes with the next.
const EVENTS_MAX: usize = 64;
const DOORBELL: u64 = u64::MAX;

/// The sleeping place of one worker.
pub struct Waiter {
    epoll: Epoll,
    doorbell: EventFd,
    events: [EpollEvent; EVENTS_MAX],
}

impl Waiter {
    /// A waiter without sockets.
    ///
    /// # Errors
    /// What the kernel says to epoll_create and eventfd.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let doorbell = doorbell()?;
        epoll.add(&doorbell, EpollEvent::new(EpollFlags::EPOLLIN, DOORBELL))?;
        Ok(Self {
            epoll,
            doorbell,
            events: [EpollEvent::empty(); EVENTS_MAX],
        })
    }

    /// A second handle of the doorbell, for those who ring it.
    ///
    /// # Errors
    /// What the kernel says to dup.
    pub fn bell(&self) -> io::Result<Bell> {
        Bell::of(&self.doorbell)
    }

    /// Registers a socket, armed, to be reported as `slot`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&self, socket: BorrowedFd<'_>, slot: u16) -> io::Result<()> {
        Ok(self.epoll.add(socket, armed(slot))?)
    }

    /// Arms a socket again; it is reported at once when packets wait.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn arm(&self, socket: BorrowedFd<'_>, slot: u16) -> io::Result<()> {
        Ok(self.epoll.modify(socket, &mut armed(slot))?)
    }

    /// Forgets a socket that is about to be closed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.delete(socket)?)
    }

    /// Waits up to `timeout_ms` (none: until something happens) and calls `ready` with each slot
    /// that has packets. A ring of the doorbell ends the wait.
    ///
    /// # Errors
    /// What the kernel says; an interruption is an empty look.
    pub fn wait(&mut self, timeout_ms: Option<u16>, mut ready: impl FnMut(u16)) -> io::Result<()> {
        let timeout = timeout_ms.map_or(EpollTimeout::NONE, EpollTimeout::from);
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &self.events[..count.min(EVENTS_MAX)] {
            match u16::try_from(event.data()) {
                Ok(slot) => ready(slot),
                Err(_) => {
                    // EAGAIN: somebody else's ring was answered already.
                    let _ = self.doorbell.read();
                }
            }
        }
        Ok(())
    }
}

/// What bells ring.
///
/// # Errors
/// What the kernel says to eventfd.
pub fn doorbell() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?)
}

fn armed(slot: u16) -> EpollEvent {
    EpollEvent::new(
        EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
        u64::from(slot),
    )
}

/// Wakes a worker, or the control side.
#[derive(Debug)]
pub struct Bell(std::os::fd::OwnedFd);

impl Bell {
    /// A handle for those who ring `doorbell`.
    ///
    /// # Errors
    /// What the kernel says to dup.
    pub fn of(doorbell: &EventFd) -> io::Result<Self> {
        Ok(Self(doorbell.as_fd().try_clone_to_owned()?))
    }

    /// Rings; a bell that rings already stays so.
    pub fn ring(&self) {
        // EAGAIN: the counter is full, so the worker is awake or about to be.
        let _ = nix::unistd::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Another handle of the same bell.
    ///
    /// # Errors
    /// What the kernel says to dup.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_ends_the_wait_and_is_not_a_slot() {
        let mut waiter = Waiter::new().unwrap();
        waiter.bell().unwrap().ring();
        let mut slots = Vec::new();
        waiter.wait(None, |slot| slots.push(slot)).unwrap();
        waiter.wait(Some(0), |slot| slots.push(slot)).unwrap();
        assert!(slots.is_empty());
    }

    #[test]
    fn a_socket_is_reported_once_until_it_is_armed_again() {
        let mut waiter = Waiter::new().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        waiter.add(ours.as_fd(), 7).unwrap();
        theirs.send(b"x").unwrap();
        let look = |waiter: &mut Waiter| {
            let mut slots = Vec::new();
            waiter.wait(Some(0), |slot| slots.push(slot)).unwrap();
            slots
        };
        assert_eq!(look(&mut waiter), [7]);
        assert!(look(&mut waiter).is_empty());
        waiter.arm(ours.as_fd(), 7).unwrap();
        assert_eq!(look(&mut waiter), [7]);
        waiter.remove(ours.as_fd()).unwrap();
        assert!(look(&mut waiter).is_empty());
    }
}
