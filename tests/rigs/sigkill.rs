//! SIGKILL under concurrent load.

use std::time::Duration;

use crate::story::{Stories, setup};
use crate::{Violation, caught, random_below};

/// Shortest and longest load before a kill, ms.
const LOAD_MS: std::ops::Range<u64> = 50..400;
/// One of so many kills hits the start after it as well.
const KILL_STARTING_EVERY: u32 = 5;
/// Longest time into a start at which it is killed, ms.
const STARTING_MS: u64 = 150;
/// After every so many kills the whole journal is verified.
const VERIFY_EVERY: u32 = 20;
/// Group from which on the control answers without writing.
const CONTROL_GROUP: u64 = 20;
/// Load of the control, ms: long enough for more groups than that.
const CONTROL_MS: u64 = 400;

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Kills `kills` times, then the control.
pub(crate) async fn run(kills: u32) -> anyhow::Result<()> {
    let mut server = setup().prepare().await;
    let mut stories = Stories::default();
    let mut killed_starting = 0;
    server.start();
    for kill in 1..=kills {
        let wait = LOAD_MS.start + random_below(LOAD_MS.end - LOAD_MS.start);
        stories
            .tell(&mut server, async |server| {
                pause(wait).await;
                server.kill();
            })
            .await?;
        if kill % KILL_STARTING_EVERY == 0 {
            server.spawn();
            pause(random_below(STARTING_MS)).await;
            server.kill();
            killed_starting += 1;
        }
        if kill % VERIFY_EVERY == 0 || kill == kills {
            server.log_verify();
        }
        server.try_start().map_err(Violation)?;
        stories.check(&server).await?;
    }
    stories.check_all(&server).await?;
    anyhow::ensure!(server.stop() == Some(0), "the exchange does not stop well: {}", server.stderr());
    server.log_verify();
    caught("answers leave before the write", control().await)?;
    println!("{kills} kills under load, {killed_starting} while starting: {}", stories.summary());
    Ok(())
}

/// Answers leave before the write, and the kill comes between the two.
async fn control() -> anyhow::Result<()> {
    let mut server = setup().prepare().await;
    server.set_env("MIAOXIANG_FAILPOINT", Some(&format!("answer-unwritten:{CONTROL_GROUP}")));
    server.start();
    let mut stories = Stories::default();
    stories
        .tell(&mut server, async |server| {
            pause(CONTROL_MS).await;
            server.kill();
        })
        .await?;
    anyhow::ensure!(stories.unchecked() as u64 > CONTROL_GROUP, "too little was answered for the control");
    server.set_env("MIAOXIANG_FAILPOINT", None);
    server.try_start().map_err(Violation)?;
    stories.check(&server).await
}
