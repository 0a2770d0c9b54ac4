//! Scratch.
pub mod lives;
pub mod optimum;
pub mod run;

use std::time::Instant;
use pinwatch::config::Adapt;
use pinwatch::schedule::learn::Aim;
use lives::*;
use optimum::*;
use run::*;
use super::report::Report;

pub fn measure(_report: &mut Report, _runs: usize) {
    for longest in [3600, 600] {
    for kind in Kind::ALL {
        let lives = draw(kind, 20_000, 7);
        let t = Instant::now();
        let with = |adapt| Settings { max_interval: std::time::Duration::from_secs(longest), ..Settings::new(adapt, 7) };
        let off = run(&lives, &with(Adapt::Off));
        println!("{} {longest} off took {:?}", kind.name(), t.elapsed());
        for (adapt, aim) in [(Adapt::Sooner, Aim::Sooner), (Adapt::Fewer, Aim::Fewer)] {
            let t = Instant::now();
            let learned = run(&lives, &with(adapt));
            let took = t.elapsed();
            let from = learned.iter().position(|f| f.endings_before >= 5000).unwrap();
            let base = mean(&off[from..]);
            let plan = optimum(kind, true, aim, base, &with(adapt));
            let best = by_plan(&plan, &lives);
            let (l, b) = (mean(&learned[from..]), mean(&best[from..]));
            println!("  {adapt:?} {took:?} price {:.2} off {:.2} {:.2}  learned {:.2} {:.2}  best {:.2} {:.2}  cost/opt {:.3}  polls {:+.1}% delay {:+.1}%",
                plan.price, base.polls, base.delay, l.polls, l.delay, b.polls, b.delay, l.at(plan.price)/b.at(plan.price), 100.*(l.polls/base.polls-1.), 100.*(l.delay/base.delay-1.));
            let worst = (0..=18_000).step_by(100).map(|i| { let (l,b)=(mean(&learned[i..i+2000]), mean(&off[i..i+2000])); (l.at(plan.price)/b.at(plan.price), i, l.polls/b.polls, l.delay/b.delay)}).max_by(|a,b|a.0.total_cmp(&b.0)).unwrap();
            println!("     worst window {worst:?}");
        }
    }
    }
}
