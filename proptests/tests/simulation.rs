//! A simulated deployment under faults that seeds choose: exactly once, whatever happens.
#![allow(clippy::expect_used)]

use std::path::PathBuf;
use std::process::Command;
use thmanyah_proptests::sim::{
    Explored, Fault, Held, Point, Schedule, Shape, Step, explain, explore, run,
};

/// A scenario, under many kinds of chance.
fn assert_scenario_holds(shape: Shape, steps: impl Fn(u64) -> Vec<Step>) {
    for seed in 0..300 {
        let steps = steps(seed);
        let schedule = Schedule { seed, shape, steps };
        let violations = run(&schedule, false).violations;
        assert!(violations.is_empty(), "chance {seed}: {violations:?}");
    }
}

/// A restore that outlived its membership once saw what the partition's new owner had published, found it at odds with the
/// commit that it had read itself, and ended the process.
#[test]
fn a_restore_that_outlives_its_membership_refuses_nothing() {
    let shape = Shape {
        partitions: 1,
        content_partitions: 1,
        nodes: 2,
        workers: 1,
        transaction_steps: 5,
        seen_containers: 4,
        wakeups: 64,
        real_stores: false,
    };
    assert_scenario_holds(shape, |seed| {
        let event = |id, content| Step::Event {
            partition: 0,
            id,
            content,
        };
        let stop = |point, nth| Step::Arm {
            node: 0,
            fault: Fault::Stop {
                point,
                nth,
                turns: 400,
                successor: false,
                alone: false,
            },
        };
        let point = match seed % 3 {
            0 => Point::Ask,
            1 => Point::Read,
            _ => Point::AfterApply,
        };
        vec![
            event(1, Some(0)),
            event(2, None),
            stop(point, (seed / 3 % 6) as u8),
            Step::Run { seed, turns: 60 },
            event(3, Some(0)),
            Step::Run {
                seed: seed + 1000,
                turns: 60,
            },
        ]
    });
}

fn assert_holds(explored: &Explored, real_stores: bool) {
    if let Some((seed, _)) = explored.failures.first() {
        let told = explain(*seed, real_stores).unwrap_or_default();
        let count = explored.failures.len();
        panic!("{told}\n{count} schedules fail: {:?}", explored.failures);
    }
}

/// A watermark of before a step back of the clock once passed the deadlines of events parked after it: while it stood still the
/// clock caught up with it, or stepped forth again. Their content was there, and not applied.
#[test]
fn a_clock_that_steps_back_and_forth_gives_up_on_nothing_that_is_there() {
    let shape = Shape {
        partitions: 1,
        content_partitions: 1,
        nodes: 1,
        workers: 1,
        transaction_steps: 5,
        seen_containers: 4,
        wakeups: 64,
        real_stores: false,
    };
    assert_scenario_holds(shape, |seed| {
        let hold = |part| Step::Hold {
            node: 0,
            part,
            ms: 30_000,
        };
        let jump = |ms| Step::Jump { node: 0, ms };
        let run = |seed| Step::Run { seed, turns: 80 };
        let mut steps = vec![run(seed), hold(Held::Materializer)];
        if seed % 2 == 0 {
            steps.push(hold(Held::Watermark));
        }
        steps.extend([
            jump(-25_000),
            Step::Content {
                content: 0,
                length: 60,
                toast: false,
            },
            Step::Event {
                partition: 0,
                id: 1,
                content: Some(0),
            },
            run(seed + 1000),
            jump(if seed % 3 == 0 { 20_000 } else { 0 }),
            Step::Wait { ms: 8_000 },
            run(seed + 2000),
            Step::Wait { ms: 8_000 },
            run(seed + 3000),
            Step::Wait { ms: 8_000 },
            run(seed + 4000),
        ]);
        steps
    });
}

#[test]
fn a_process_that_stood_still_while_retention_passed_it_goes_on() {
    let shape = Shape {
        partitions: 2,
        content_partitions: 1,
        nodes: 2,
        workers: 1,
        transaction_steps: 5,
        seen_containers: 4,
        wakeups: 64,
        real_stores: false,
    };
    assert_scenario_holds(shape, |seed| {
        let event = |partition, id| Step::Event {
            partition,
            id,
            content: None,
        };
        let run = |seed, turns| Step::Run { seed, turns };
        let sleep = Fault::Stop {
            point: Point::AfterOffsets,
            nth: 0,
            turns: 400,
            successor: false,
            alone: false,
        };
        vec![
            run(seed, 80),
            event(0, 1),
            event(1, 2),
            Step::Arm {
                node: (seed % 2) as u8,
                fault: sleep,
            },
            run(seed + 1000, 60),
            Step::Retain { input: true },
            run(seed + 2000, 60),
        ]
    });
}

#[test]
fn twenty_thousand_schedules_violate_nothing_and_reach_every_crash_point() {
    let explored = explore(0..20_000, false, false);
    assert_holds(&explored, false);
    assert_eq!(explored.schedules, 20_000);
    let missing = explored.counts.missing();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

#[test]
fn five_hundred_schedules_over_real_stores_with_cut_logs_violate_nothing() {
    let explored = explore(0..500, true, false);
    assert_holds(&explored, true);
    assert_eq!(explored.schedules, 500);
}

#[test]
fn a_seed_determines_everything() {
    let [a, b] = [(); 2].map(|()| explore(40..60, false, false).counts.0);
    assert_eq!(a, b);
}

#[test]
fn every_mutant_still_applies() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let patches: Vec<PathBuf> = std::fs::read_dir(root.join("proptests/mutants"))
        .expect("there are mutants")
        .map(|entry| entry.expect("they can be listed").path())
        .filter(|path| path.extension().is_some_and(|is| is == "patch"))
        .collect();
    assert!(patches.len() >= 16, "there are only {}", patches.len());
    for patch in patches {
        let outcome = Command::new("git")
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(&root)
            .output()
            .expect("git is there");
        let told = String::from_utf8_lossy(&outcome.stderr);
        assert!(outcome.status.success(), "{}: {told}", patch.display());
    }
}
