//! A queue that is fair between clients.

use std::collections::VecDeque;

/// What waits, in a lane for each client. Clients take turns; what one client has sent comes in its order.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// The next client first. No lane is empty.
    lanes: VecDeque<(String, VecDeque<T>)>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lanes: VecDeque::new() }
    }
}

impl<T: Copy + PartialEq> FairQueue<T> {
    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|(_, lane)| lane.len()).sum()
    }

    /// How many of a client wait.
    pub(crate) fn of(&self, client: &str) -> usize {
        self.lanes.iter().find(|(name, _)| name == client).map_or(0, |(_, lane)| lane.len())
    }

    pub(crate) fn push(&mut self, client: &str, item: T) {
        match self.lanes.iter_mut().find(|(name, _)| name == client) {
            Some((_, lane)) => lane.push_back(item),
            None => self.lanes.push_back((client.to_owned(), VecDeque::from([item]))),
        }
    }

    /// The next one. Its client has its next turn after all others that wait.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (client, mut lane) = self.lanes.pop_front()?;
        let item = lane.pop_front();
        if !lane.is_empty() {
            self.lanes.push_back((client, lane));
        }
        item
    }

    /// Takes one out. Says whether it was there.
    pub(crate) fn remove(&mut self, item: T) -> bool {
        let before = self.len();
        self.lanes.iter_mut().for_each(|(_, lane)| lane.retain(|other| *other != item));
        self.lanes.retain(|(_, lane)| !lane.is_empty());
        self.len() < before
    }

    /// Its place, from 1, if nothing else comes.
    pub(crate) fn position(&self, item: T) -> Option<usize> {
        let found =
            self.lanes.iter().enumerate().find_map(|(number, (_, lane))| {
                lane.iter().position(|other| *other == item).map(|depth| (number, depth))
            });
        let (own, depth) = found?;
        // Of the lanes before its own, one more is taken from each in the same round.
        let before =
            |(number, (_, lane)): (usize, &(String, VecDeque<T>))| lane.len().min(depth + usize::from(number < own));
        Some(self.lanes.iter().enumerate().map(before).sum::<usize>() + 1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.lanes.iter().flat_map(|(_, lane)| lane.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_take_turns() {
        let mut queue = FairQueue::default();
        for item in 0..5 {
            queue.push("many", item);
        }
        queue.push("one", 10);
        queue.push("two", 20);
        assert_eq!(queue.of("many"), 5);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [0, 10, 20, 1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn a_position_is_the_turn(clients in proptest::collection::vec(0..4_u8, 0..30), gone in proptest::collection::vec(0..30_usize, 0..5)) {
            let mut queue = FairQueue::default();
            for (item, client) in clients.iter().enumerate() {
                queue.push(&client.to_string(), item);
            }
            for item in gone {
                let there = queue.position(item).is_some();
                prop_assert_eq!(queue.remove(item), there);
                prop_assert_eq!(queue.position(item), None);
            }
            let told: Vec<_> = queue.iter().map(|item| (queue.position(item), item)).collect();
            prop_assert_eq!(queue.len(), told.len());
            let turns: Vec<_> = std::iter::from_fn(|| queue.pop()).enumerate().map(|(turn, item)| (Some(turn + 1), item)).collect();
            let mut told = told;
            told.sort_unstable();
            prop_assert_eq!(told, turns);
        }
    }
}
