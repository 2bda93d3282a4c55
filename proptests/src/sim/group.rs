//! The group coordinator: static membership, cooperative rebalances in generations, expiry, committed and pending offsets.

use super::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// How long a member may be silent.
const SESSION_US: u64 = 6_000_000;
/// How long a rebalance waits for members.
const REBALANCE_US: u64 = 60_000_000;
/// How often a member is heard of.
pub(super) const HEARTBEAT_US: u64 = 2_000_000;

/// What fences a transaction's offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupMeta {
    /// Group.
    pub(super) group: usize,
    /// `group.instance.id`.
    pub(super) instance: String,
    /// The member's id.
    pub(super) member: u64,
    /// The generation.
    pub(super) generation: i32,
}

/// One consumer group.
#[derive(Default)]
pub(super) struct Group {
    /// Partitions of its topic.
    pub(super) partitions: i32,
    /// The generation.
    pub(super) generation: i32,
    /// Whether a rebalance is under way, and until when it waits.
    joining_until_us: Option<u64>,
    members: BTreeMap<String, Seat>,
    /// What is committed.
    pub(super) offsets: BTreeMap<i32, (i64, String)>,
    /// What undecided transactions would commit.
    pub(super) pending: BTreeMap<u64, BTreeMap<i32, (i64, String)>>,
}

/// A member as the coordinator knows it.
struct Seat {
    member: u64,
    expires_us: u64,
    /// Whether it joined the rebalance under way.
    joined: bool,
    /// What it said it owns when it joined.
    owned: BTreeSet<i32>,
    /// What it was given last.
    assigned: BTreeSet<i32>,
    /// The answer to its join.
    answer: Option<(i32, BTreeSet<i32>)>,
}

impl Group {
    /// A group without members.
    pub(super) fn new(partitions: i32) -> Self {
        Self {
            partitions,
            ..Self::default()
        }
    }

    /// Whether a transaction's offsets are accepted from this sender.
    pub(super) fn validate(&self, meta: &GroupMeta) -> Result<(), &'static str> {
        match self.members.get(&meta.instance) {
            None => Err("UNKNOWN_MEMBER_ID"),
            Some(seat) if seat.member != meta.member => Err("FENCED_INSTANCE_ID"),
            Some(_) if meta.generation != self.generation => Err("ILLEGAL_GENERATION"),
            Some(_) => Ok(()),
        }
    }

    /// A transaction's offsets are decided.
    pub(super) fn decide(&mut self, producer: u64, commit: bool) {
        let pending = self.pending.remove(&producer).unwrap_or_default();
        if commit {
            self.offsets.extend(pending);
        }
    }

    /// Whether an undecided transaction would move a partition's offset.
    pub(super) fn is_unstable(&self, partition: i32) -> bool {
        let mut pending = self.pending.values();
        pending.any(|offsets| offsets.contains_key(&partition))
    }

    /// Whether every partition has an owner and no rebalance is under way.
    pub(super) fn is_whole(&self) -> bool {
        self.joining_until_us.is_none() && self.unowned() == 0
    }

    fn unowned(&self) -> usize {
        let owned: usize = self.members.values().map(|seat| seat.assigned.len()).sum();
        self.partitions as usize - owned.min(self.partitions as usize)
    }

    /// Begins a rebalance, if none is under way.
    pub(super) fn rebalance(&mut self, now_us: u64) {
        if self.joining_until_us.is_none() {
            self.joining_until_us = Some(now_us + REBALANCE_US);
            for seat in self.members.values_mut() {
                seat.joined = false;
            }
        }
    }

    fn expel(&mut self, instance: &str, now_us: u64) {
        if self.members.remove(instance).is_some() {
            self.rebalance(now_us);
        }
    }

    fn sweep(&mut self, now_us: u64) {
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, seat)| seat.expires_us < now_us)
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in expired {
            self.expel(&instance, now_us);
        }
        let Some(until) = self.joining_until_us else {
            return;
        };
        if now_us > until {
            self.members.retain(|_, seat| seat.joined);
        }
        if !self.members.is_empty() && self.members.values().all(|seat| seat.joined) {
            self.complete();
        }
    }

    /// Ends a rebalance: what stays with its owner stays; what moves is first taken away, and given at the next one.
    fn complete(&mut self) {
        self.joining_until_us = None;
        self.generation += 1;
        let count = self.members.len();
        let (share, more) = (
            self.partitions as usize / count,
            self.partitions as usize % count,
        );
        let mut free: BTreeSet<i32> = (0..self.partitions).collect();
        let mut target: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for (at, (instance, seat)) in self.members.iter().enumerate() {
            let quota = share + usize::from(at < more);
            let kept: BTreeSet<i32> = seat
                .assigned
                .iter()
                .copied()
                .filter(|partition| free.contains(partition))
                .take(quota)
                .collect();
            for partition in &kept {
                free.remove(partition);
            }
            target.insert(instance.clone(), kept);
        }
        for (at, (instance, _)) in self.members.iter().enumerate() {
            let quota = share + usize::from(at < more);
            let given = target.entry(instance.clone()).or_default();
            while given.len() < quota
                && let Some(partition) = free.pop_first()
            {
                given.insert(partition);
            }
        }
        let claims: Vec<(String, BTreeSet<i32>)> = self
            .members
            .iter()
            .map(|(instance, seat)| (instance.clone(), &seat.owned & &seat.assigned))
            .collect();
        for (instance, seat) in &mut self.members {
            let mut given = target.remove(instance).unwrap_or_default();
            given.retain(|partition| {
                let elsewhere = |(other, owned): &(String, BTreeSet<i32>)| {
                    other != instance && owned.contains(partition)
                };
                !claims.iter().any(elsewhere)
            });
            seat.assigned.clone_from(&given);
            seat.answer = Some((self.generation, given));
        }
    }
}

/// What a rebalance asks of a client; served inside its poll.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    /// Taken away.
    pub(super) revoke: Vec<i32>,
    /// Added, perhaps nothing.
    pub(super) assign: Option<Vec<i32>>,
}

/// Reading a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetch {
    /// The next offset, once reading began.
    pub(super) position: Option<i64>,
    /// Whether it rests.
    pub(super) paused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Outside,
    Joining,
    Inside,
}

/// A member's client.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that the coordinator or the client knows"
)]
pub(super) struct Client {
    /// Its process.
    pub(super) process: usize,
    /// Its group.
    pub(super) group: usize,
    /// `group.instance.id`.
    pub(super) instance: String,
    /// Its id; 0 before the first join.
    pub(super) member: u64,
    /// The generation it knows of.
    pub(super) generation: i32,
    /// What it owns.
    pub(super) owned: BTreeMap<i32, Fetch>,
    /// A rebalance that its poll has yet to serve.
    pub(super) event: Option<Event>,
    /// Whether its poll serves a rebalance now. Nothing else happens to its membership before that is answered.
    pub(super) serving: bool,
    /// Whether another member has its name.
    pub(super) fenced: bool,
    /// Whether it is gone.
    pub(super) closed: bool,
    membership: Membership,
    /// Notices of rebalances take their time.
    notices_us: u64,
    /// When it was last heard of.
    beat_us: u64,
    /// Whether it will slip from an expired membership into a new one without a revocation.
    pub(super) slips: bool,
}

impl Client {
    /// A client that has not joined.
    pub(super) fn new(process: usize, group: usize, instance: String) -> Self {
        Self {
            process,
            group,
            instance,
            member: 0,
            generation: -1,
            owned: BTreeMap::new(),
            event: None,
            serving: false,
            fenced: false,
            closed: false,
            membership: Membership::Outside,
            notices_us: 0,
            beat_us: 0,
            slips: false,
        }
    }

    /// What transactions would be fenced by if it were taken now.
    pub(super) fn meta(&self) -> GroupMeta {
        GroupMeta {
            group: self.group,
            instance: self.instance.clone(),
            member: self.member,
            generation: self.generation,
        }
    }
}

impl World {
    /// What coordinators and the clients' own threads do by themselves.
    pub(super) fn run_groups(&mut self) {
        let now = self.now_us;
        for group in &mut self.groups {
            group.sweep(now);
        }
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            let running = self.processes[client.process].runs();
            if !client.closed && !client.fenced && running {
                self.run_client(at);
            }
        }
    }

    fn run_client(&mut self, at: usize) {
        let now = self.now_us;
        let notice = now + self.rng.between(0, 400_000);
        let fresh = self.rng.next() | 1;
        let client = &mut self.clients[at];
        let group = &mut self.groups[client.group];
        let seat = group.members.get_mut(&client.instance);
        if client.membership != Membership::Outside {
            match seat {
                Some(seat) if seat.member != client.member => {
                    client.fenced = true;
                    self.counts.reach("a zombie was fenced");
                    return;
                }
                None if client.serving => return,
                None => {
                    client.membership = Membership::Outside;
                    let lost: Vec<i32> = client.owned.keys().copied().collect();
                    if std::mem::take(&mut client.slips) {
                        self.counts.reach("a member slipped into a new membership");
                    } else if !lost.is_empty() {
                        client.event = Some(Event {
                            revoke: lost,
                            assign: None,
                        });
                    }
                    return;
                }
                Some(seat) => {
                    if now - client.beat_us >= HEARTBEAT_US / 2 {
                        client.beat_us = now;
                        seat.expires_us = now + SESSION_US;
                    }
                    if client.serving {
                        return;
                    }
                    if let Some((generation, assigned)) = seat.answer.take() {
                        client.generation = generation;
                        client.membership = Membership::Inside;
                        let owned: BTreeSet<i32> = client.owned.keys().copied().collect();
                        client.event = Some(Event {
                            revoke: (&owned - &assigned).into_iter().collect(),
                            assign: Some((&assigned - &owned).into_iter().collect()),
                        });
                        return;
                    }
                    let asked = group.joining_until_us.is_some() && !seat.joined;
                    if !asked {
                        client.notices_us = notice;
                    } else if client.event.is_none() && now >= client.notices_us {
                        seat.joined = true;
                        seat.owned = client.owned.keys().copied().collect();
                        client.membership = Membership::Joining;
                    }
                    return;
                }
            }
        }
        if client.event.is_some() || client.serving {
            return;
        }
        client.member = fresh;
        client.membership = Membership::Joining;
        client.beat_us = now;
        let owned: BTreeSet<i32> = client.owned.keys().copied().collect();
        let whole = group.is_whole();
        let seat = Seat {
            member: fresh,
            expires_us: now + SESSION_US,
            joined: true,
            owned,
            assigned: BTreeSet::new(),
            answer: None,
        };
        // A static member that comes back takes its seat, and where nothing is amiss nobody else notices.
        if let Some(old) = group.members.get_mut(&client.instance) {
            let assigned = std::mem::take(&mut old.assigned);
            *old = seat;
            old.assigned = assigned;
            if whole {
                old.answer = Some((group.generation, old.assigned.clone()));
            } else {
                group.rebalance(now);
                if let Some(seat) = group.members.get_mut(&client.instance) {
                    seat.joined = true;
                }
            }
        } else {
            group.rebalance(now);
            group.members.insert(client.instance.clone(), seat);
        }
    }

    /// The client served what a rebalance took away: it joins again, so that this can be given to others.
    pub(super) fn rejoin(&mut self, at: usize) {
        let now = self.now_us;
        let client = &mut self.clients[at];
        let group = &mut self.groups[client.group];
        if client.membership == Membership::Outside {
            return;
        }
        group.rebalance(now);
        if let Some(seat) = group.members.get_mut(&client.instance)
            && seat.member == client.member
        {
            seat.joined = true;
            seat.owned = client.owned.keys().copied().collect();
            client.membership = Membership::Joining;
        }
    }

    /// A member is not heard of for longer than its session.
    pub(super) fn expire(&mut self, group: usize, instance: &str) {
        let now = self.now_us;
        self.groups[group].expel(instance, now);
    }
}
