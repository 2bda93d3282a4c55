//! Writes the schedule of a seed.

use super::rng::Rng;
use super::schedule::{Fault, Held, Loss, Point, Schedule, Shape, Step};

/// Contents there may be.
const CONTENTS: usize = 4;

impl Schedule {
    /// The schedule of a seed.
    pub fn of(seed: u64, real_stores: bool) -> Self {
        let mut rng = Rng::new(seed);
        let shape = Shape {
            partitions: rng.between(1, 4) as i32,
            content_partitions: rng.between(1, 3) as i32,
            nodes: [1, 2, 2, 2, 3][rng.below(5)],
            workers: [1, 1, 2][rng.below(3)],
            transaction_steps: rng.between(2, 9) as usize,
            seen_containers: rng.between(1, 6) as usize,
            wakeups: if rng.chance(1, 4) { 1 } else { 64 },
            real_stores,
        };
        let mut author = Author {
            shape,
            ids: Vec::new(),
            stride: [1, 1, 7, 70_001, -70_001][rng.below(5)],
            faults: rng.between(1, 10),
            rng,
            steps: Vec::new(),
        };
        for _ in 0..author.rng.between(15, 45) {
            author.write();
        }
        Self {
            seed,
            shape,
            steps: author.steps,
        }
    }
}

/// Writes a schedule.
struct Author {
    rng: Rng,
    shape: Shape,
    /// Events sent so far.
    ids: Vec<Step>,
    stride: i64,
    /// Faults in so many of twelve places.
    faults: u64,
    steps: Vec<Step>,
}

impl Author {
    fn write(&mut self) {
        if self.rng.chance(1, 150) {
            self.stall();
        }
        for _ in 0..self.rng.below(3) {
            let input = self.input();
            self.steps.push(input);
        }
        if self.rng.chance(self.faults, 12) {
            let trouble = self.trouble();
            self.steps.push(trouble);
        }
        let turns = if self.rng.chance(1, 5) { 60 } else { 20 };
        let step = Step::Run {
            seed: self.rng.next(),
            turns: self.rng.between(2, turns) as u16,
        };
        self.steps.push(step);
        if self.rng.chance(1, 12) {
            let ms = self.rng.between(100, 9_000) as u32;
            self.steps.push(Step::Wait { ms });
        }
    }

    /// Content is there but not materialized until events have waited for it past their deadline, and then a worker is
    /// interrupted between its look-ups.
    fn stall(&mut self) {
        let content = self.rng.below(CONTENTS) as u8;
        for node in 0..self.shape.nodes {
            self.steps.push(Step::Hold {
                node,
                part: Held::Materializer,
                ms: 26_000,
            });
        }
        self.steps.push(Step::Content {
            content,
            length: self.rng.between(1, 5_000) as i32,
            toast: false,
        });
        for partition in 0..self.shape.partitions {
            let event = self.event(partition, content);
            self.steps.push(event);
        }
        for ms in [0, 8_000, 8_000, 8_000] {
            self.steps.push(Step::Wait { ms });
            let seed = self.rng.next();
            self.steps.push(Step::Run { seed, turns: 60 });
        }
        for node in 0..self.shape.nodes {
            let fault = Fault::Stop {
                point: Point::Poll,
                nth: self.rng.below(60) as u8,
                turns: 400,
                successor: false,
                alone: true,
            };
            self.steps.push(Step::Arm { node, fault });
        }
        let seed = self.rng.next();
        self.steps.push(Step::Run { seed, turns: 200 });
    }

    fn input(&mut self) -> Step {
        let partition = self.rng.below(self.shape.partitions as usize) as i32;
        let content = self.rng.below(CONTENTS) as u8;
        match self.rng.below(20) {
            0..=9 => self.event(partition, content),
            10 | 11 if !self.ids.is_empty() => self.ids[self.rng.below(self.ids.len())],
            12 => Step::Poison {
                partition,
                kind: self.rng.below(4) as u8,
            },
            13 => Step::Tombstone { partition },
            14 => Step::ContentGone { content },
            15 if self.rng.chance(1, 3) => Step::ContentPoison,
            _ => Step::Content {
                content,
                length: self.rng.between(1, 5_000) as i32,
                toast: self.rng.chance(1, 4),
            },
        }
    }

    fn event(&mut self, partition: i32, content: u8) -> Step {
        // Each id has one partition; ids of one partition come neither dense nor in order.
        let number =
            self.ids.len() as i64 * i64::from(self.shape.partitions) + i64::from(partition);
        let swapped = if self.rng.chance(1, 3) {
            1_000 - number
        } else {
            number
        };
        let step = Step::Event {
            partition,
            id: swapped * self.stride,
            content: (!self.rng.chance(1, 12)).then_some(content),
        };
        self.ids.push(step);
        step
    }

    fn loss(&mut self) -> Loss {
        match self.rng.below(5) {
            0 => Loss::Disk,
            1 | 2 => Loss::Sets(self.rng.between(1, 12) as usize),
            _ => Loss::Nothing,
        }
    }

    fn point(&mut self) -> Point {
        Point::ALL[self.rng.below(Point::ALL.len())]
    }

    fn trouble(&mut self) -> Step {
        let node = self.rng.below(usize::from(self.shape.nodes)) as u8;
        match self.rng.below(34) {
            0..=13 => Step::Arm {
                node,
                fault: self.fault(),
            },
            14 | 15 => Step::Kill {
                node,
                loss: self.loss(),
            },
            16 => Step::Shutdown { node },
            17 | 18 => Step::Jump {
                node,
                ms: self.jump(),
            },
            19 | 20 => Step::Expire {
                node,
                worker: self.rng.below(usize::from(self.shape.workers) + 1) as u8,
                slips: self.rng.chance(1, 2),
            },
            21 | 22 => Step::Rebalance {
                enricher: self.rng.chance(3, 4),
            },
            23 | 24 => Step::SlowMarkers {
                ms: self.rng.between(50, 3_000) as u16,
            },
            30..=33 => Step::Hold {
                node,
                part: [
                    Held::Materializer,
                    Held::Materializer,
                    Held::Replica,
                    Held::Replica,
                    Held::Watermark,
                    Held::Barriers,
                    Held::Workers,
                ][self.rng.below(7)],
                ms: self.rng.between(500, 30_000) as u16,
            },
            25 | 26 => Step::Compact {
                topic: self.rng.below(3) as u8,
                tombstones: self.rng.chance(1, 3),
            },
            _ => Step::Retain {
                input: self.rng.chance(1, 2),
            },
        }
    }

    /// Hosts whose clocks differ by more than the deadline would give up too early; one host alone may jump at will.
    fn jump(&mut self) -> i32 {
        let most = if self.shape.nodes == 1 { 40_000 } else { 600 };
        self.rng.between(0, 2 * most) as i32 - most as i32
    }

    fn fault(&mut self) -> Fault {
        let alone = self.rng.chance(1, 2);
        let passes = self.rng.between(0, 6) as u8;
        let nth = [0, 0, 0, 1, 2, 5][self.rng.below(6)];
        match self.rng.below(24) {
            0..=7 => Fault::Die {
                point: self.point(),
                nth,
                loss: self.loss(),
            },
            8..=11 => Fault::Stop {
                point: self.point(),
                nth,
                turns: if self.rng.chance(1, 2) { 25 } else { 400 },
                successor: !alone && self.rng.chance(1, 2),
                alone,
            },
            12..=14 => {
                let slow = self.rng.chance(2, 3);
                Fault::HiddenRetry {
                    commit: self.rng.chance(3, 4),
                    passes,
                    slow,
                    trouble: !slow || self.rng.chance(1, 2),
                }
            }
            15 => Fault::LateOffsets { passes },
            16 | 17 => Fault::LostAnswer {
                durable: self.rng.chance(1, 2),
                flags: [(true, false), (false, false), (false, true)][self.rng.below(3)],
            },
            18 => Fault::Retriable,
            19 => Fault::AbortFails,
            20 => Fault::Undelivered,
            21 => Fault::ResumeFails,
            _ => Fault::Silence {
                questions: self.rng.between(1, 20) as u8,
            },
        }
    }
}
