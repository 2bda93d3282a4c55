//! What a description of the group says: partitions that nobody owns, and members that are gone for good.

use crate::kafka::GroupDescription;
use std::collections::BTreeSet;

/// Members remembered at most; a group has no more members than partitions that are worth one.
const REMEMBERED: usize = 4_096;
/// So many descriptions running must show a partition without an owner before the first member acts; the others wait longer,
/// each by its place among the members, up to [`LAST_PLACE`].
const RUNNING: usize = 2;
/// The longest wait for those before.
const LAST_PLACE: usize = 4;

/// What to do about a group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Partitions without an owner in a stable group.
    pub(super) unowned: usize,
    /// Whether this process shall force a rebalance.
    pub(super) force: bool,
    /// Members that the group lists no longer. Told again until they are [forgotten](Census::forget).
    pub(super) gone: Vec<String>,
}

/// The group as it was seen so far.
pub(super) struct Census {
    topic: String,
    partitions: i32,
    /// This process's members.
    ours: BTreeSet<String>,
    /// Every member of this deployment has an id that begins with it.
    prefix: String,
    known: BTreeSet<String>,
    running: usize,
}

impl Census {
    pub(super) fn new(topic: &str, partitions: i32, ours: BTreeSet<String>, prefix: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions,
            ours,
            prefix: prefix.to_owned(),
            known: BTreeSet::new(),
            running: 0,
        }
    }

    /// Judges a description. `regular` is one of those that come at fixed times; only they count as running.
    pub(super) fn take(&mut self, group: &GroupDescription, regular: bool) -> Findings {
        let listed: BTreeSet<&str> = group
            .members
            .iter()
            .map(|member| member.instance.as_str())
            .filter(|instance| instance.starts_with(&self.prefix))
            .collect();
        let place = listed
            .iter()
            .position(|instance| self.ours.contains(*instance));
        let gone = if place.is_some() {
            let gone = self.known.iter().filter(|id| !listed.contains(id.as_str()));
            gone.cloned().collect()
        } else {
            // A group that does not list this process tells nothing about others: they may have taken its place.
            Vec::new()
        };
        for instance in listed {
            if self.known.len() < REMEMBERED && !self.ours.contains(instance) {
                self.known.insert(instance.to_owned());
            }
        }
        let unowned = if group.stable { self.unowned(group) } else { 0 };
        if unowned == 0 {
            self.running = 0;
        } else if regular {
            self.running += 1;
        }
        let due = place.map(|place| RUNNING + place.min(LAST_PLACE));
        let force = regular && due.is_some_and(|due| self.running >= due);
        if force {
            self.running = 0;
        }
        Findings {
            unowned,
            force,
            gone,
        }
    }

    /// A member that is gone has been dealt with.
    pub(super) fn forget(&mut self, member: &str) {
        self.known.remove(member);
    }

    fn unowned(&self, group: &GroupDescription) -> usize {
        let owned: BTreeSet<i32> = group
            .members
            .iter()
            .flat_map(|member| &member.partitions)
            .filter(|(topic, _)| *topic == self.topic)
            .map(|(_, partition)| *partition)
            .collect();
        (0..self.partitions).filter(|p| !owned.contains(p)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::GroupMember;

    fn group(stable: bool, members: &[(&str, &[i32])]) -> GroupDescription {
        let members = members.iter().map(|(instance, partitions)| GroupMember {
            instance: (*instance).to_owned(),
            id: String::new(),
            host: String::new(),
            partitions: partitions.iter().map(|p| ("raw".to_owned(), *p)).collect(),
        });
        GroupDescription {
            stable,
            members: members.collect(),
        }
    }

    fn census(ours: &str) -> Census {
        Census::new("raw", 3, BTreeSet::from([ours.to_owned()]), "app-")
    }

    #[test]
    fn a_partition_without_an_owner_is_acted_upon_when_it_was_seen_twice_running() {
        let mut census = census("app-a-0");
        let lacking = group(true, &[("app-a-0", &[0]), ("app-b-0", &[2])]);
        let moving = group(false, &[("app-a-0", &[0]), ("app-b-0", &[2])]);
        assert_eq!(
            (census.take(&lacking, true).unowned, census.running),
            (1, 1)
        );
        // One that came in between counts for nothing, and a rebalance begins anew.
        assert!(!census.take(&lacking, false).force);
        assert_eq!(census.take(&moving, true).unowned, 0);
        assert!(!census.take(&lacking, true).force);
        assert!(census.take(&lacking, true).force);
        assert!(!census.take(&lacking, true).force);
        let whole = group(true, &[("app-a-0", &[0, 1]), ("app-b-0", &[2])]);
        assert_eq!(census.take(&whole, true), Findings::default());
    }

    #[test]
    fn the_first_member_acts_before_the_others() {
        let lacking = group(true, &[("app-a-0", &[0]), ("app-b-0", &[2])]);
        let mut second = census("app-b-0");
        let acts: Vec<bool> = (0..4).map(|_| second.take(&lacking, true).force).collect();
        assert_eq!(acts, [false, false, true, false]);
        let mut stranger = census("app-z-0");
        assert!((0..20).all(|_| !stranger.take(&lacking, true).force));
    }

    #[test]
    fn a_member_that_the_group_lists_no_longer_is_told_until_it_is_forgotten() {
        let mut census = census("app-a-0");
        let both = group(true, &[("app-a-0", &[0, 1]), ("app-b-0", &[2])]);
        let alone = group(true, &[("app-a-0", &[0, 1, 2])]);
        assert!(census.take(&both, true).gone.is_empty());
        assert_eq!(census.take(&alone, false).gone, ["app-b-0"]);
        assert_eq!(census.take(&alone, true).gone, ["app-b-0"]);
        // It came back.
        assert!(census.take(&both, true).gone.is_empty());
        assert_eq!(census.take(&alone, true).gone, ["app-b-0"]);
        census.forget("app-b-0");
        assert!(census.take(&alone, true).gone.is_empty());
    }

    #[test]
    fn one_that_is_itself_no_member_judges_nobody() {
        let mut census = census("app-a-0");
        census.take(&group(true, &[("app-a-0", &[0]), ("app-b-0", &[1])]), true);
        assert!(census.take(&group(false, &[]), true).gone.is_empty());
        let successor = group(true, &[("app-c-0", &[0, 1, 2])]);
        assert!(census.take(&successor, true).gone.is_empty());
    }

    #[test]
    fn members_of_other_deployments_are_none_of_ours() {
        let mut census = census("app-a-0");
        let with = group(
            true,
            &[("app-a-0", &[0, 1]), ("other-b-0", &[2]), ("", &[])],
        );
        assert!(census.take(&with, true).gone.is_empty());
        assert!(
            census
                .take(&group(true, &[("app-a-0", &[0, 1, 2])]), true)
                .gone
                .is_empty()
        );
    }
}
