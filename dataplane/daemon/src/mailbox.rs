//! How the control side and a worker speak: wait-free on the worker's side.
//!
//! A worker runs at real-time priority on the core where the threads that command it may run too, and
//! those threads run at none. It must never wait for one of them, not for the few instructions either
//! between two steps of a message: the channels of crossbeam and of the standard library spin there, and a
//! worker that spins on the core of the thread it waits for stands still until the kernel's real-time
//! throttling lets that thread on, for up to 950 ms.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};

/// Messages that wait for a worker. Nearly all are answered before the next is sent.
const WAITING_MAX: usize = 64;

/// First and longest pause between looks for an answer: a worker answers between two rounds.
const LOOK_MIN: Duration = Duration::from_micros(20);
const LOOK_MAX: Duration = Duration::from_micros(500);

/// The sending end, for any thread of the control side.
pub struct Outbox<T>(Mutex<Producer<T>>);

/// The receiving end of a worker.
pub struct Inbox<T>(Consumer<T>);

/// Both ends of a mailbox.
pub fn mailbox<T>() -> (Outbox<T>, Inbox<T>) {
    let (producer, consumer) = RingBuffer::new(WAITING_MAX);
    (Outbox(Mutex::new(producer)), Inbox(consumer))
}

impl<T> Outbox<T> {
    /// Leaves a message; false when the worker is gone or takes none.
    pub fn send(&self, message: T) -> bool {
        let mut producer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !producer.is_abandoned() && producer.push(message).is_ok()
    }
}

impl<T> Inbox<T> {
    /// The next message.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        self.0.pop().ok()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The place for one answer of a worker.
pub struct Answer<T>(Producer<T>);

/// Where the answer comes in.
pub struct Pending<T>(Consumer<T>);

/// A place for an answer.
pub fn answer<T>() -> (Answer<T>, Pending<T>) {
    let (producer, consumer) = RingBuffer::new(1);
    (Answer(producer), Pending(consumer))
}

impl<T> Answer<T> {
    /// Answers; nobody may be waiting any more.
    pub fn give(mut self, value: T) {
        let _ = self.0.push(value);
    }
}

impl<T> Pending<T> {
    /// The answer, unless the worker ends or stays silent for `limit`.
    pub fn wait(mut self, limit: Duration) -> Option<T> {
        let end = Instant::now() + limit;
        let mut pause = LOOK_MIN;
        loop {
            // In this order: what was given before the other end went is still there.
            let gone = self.0.is_abandoned();
            if let Ok(value) = self.0.pop() {
                return Some(value);
            }
            if gone || Instant::now() >= end {
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn messages_come_in_order_and_are_answered() {
        let (outbox, mut inbox) = mailbox();
        let worker = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while seen.len() < 3 {
                if let Some((number, answer)) = inbox.take() {
                    let answer: Answer<u32> = answer;
                    seen.push(number);
                    answer.give(number * 2);
                }
            }
            seen
        });
        for number in [1, 2, 3] {
            let (place, pending) = answer();
            assert!(outbox.send((number, place)));
            assert_eq!(pending.wait(SOON), Some(number * 2));
        }
        assert_eq!(worker.join().unwrap(), [1, 2, 3]);
        assert!(!outbox.send((4, answer().0)), "nobody takes it");
    }

    #[test]
    fn an_answer_that_cannot_come_is_not_waited_for() {
        let (place, pending) = answer::<u32>();
        drop(place);
        let started = Instant::now();
        assert_eq!(pending.wait(SOON), None);
        assert!(started.elapsed() < SOON);
        let (place, pending) = answer::<u32>();
        assert_eq!(pending.wait(Duration::from_millis(5)), None);
        place.give(1);
    }

    #[test]
    fn a_full_mailbox_takes_nothing() {
        let (outbox, mut inbox) = mailbox();
        assert!((0..WAITING_MAX).all(|number| outbox.send(number)));
        assert!(!outbox.send(WAITING_MAX));
        assert_eq!(inbox.take(), Some(0));
        assert!(outbox.send(WAITING_MAX));
        assert!(!inbox.is_empty());
    }
}
