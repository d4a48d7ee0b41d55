//! Numbers for things that come and go.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// How many numbers of things that are gone are remembered beyond those in use, so that what comes
/// back soon has its number again. More would cost memory for every pod there ever was.
const GONE_MAX: usize = 1_024;

/// Gives each distinct thing a number that no other thing ever gets.
#[derive(Clone, Debug)]
pub(super) struct Numbers<T> {
    numbers: HashMap<Arc<T>, u32>,
    next: u32,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            next: 1,
        }
    }
}

impl<T: Eq + Hash> Numbers<T> {
    /// The number of `thing`, which is never 0, and the one shared copy of it.
    pub fn of(&mut self, thing: T) -> (u32, Arc<T>) {
        if let Some((known, number)) = self.numbers.get_key_value(&thing) {
            return (*number, Arc::clone(known));
        }
        let (number, thing) = (self.next, Arc::new(thing));
        self.next += 1;
        self.numbers.insert(Arc::clone(&thing), number);
        (number, thing)
    }

    /// Whether there are so many that those that are gone should be forgotten.
    pub fn has_many(&self, in_use_count: usize) -> bool {
        self.numbers.len() > 2 * in_use_count + GONE_MAX
    }

    /// Forgets what is not in use. If it comes back it gets a new number.
    pub fn retain(&mut self, in_use: impl Fn(u32, &T) -> bool) {
        self.numbers.retain(|thing, number| in_use(*number, thing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_given_away() {
        let mut numbers = Numbers::default();
        let first = numbers.of(0).0;
        assert_eq!((first, numbers.has_many(0)), (1, false));
        let last = (1..=2_000).map(|n| numbers.of(n).0).max().unwrap();
        assert_eq!(numbers.of(0).0, first);
        assert!(numbers.has_many(1));
        numbers.retain(|number, _| number == last);
        assert_eq!(numbers.of(2_000).0, last);
        assert!(numbers.of(0).0 > last);
    }
}
