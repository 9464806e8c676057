//! What `vslice ps` reads from QEMU's command lines, without their processes: one line of output, in JSON, for each
//! line of standard input, which has the words of a command line in a JSON array.

use serde_json::json;
use std::error::Error;
use std::io::{self, BufRead, Write};
use vslice_host::qemu_args::QemuArgs;

fn main() -> Result<(), Box<dyn Error>> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let words: Vec<String> = serde_json::from_str(&line?)?;
        let args = QemuArgs::parse(&words);
        let read = json!({
            "name": args.name,
            "disks": args.disks,
            "qmp_sockets": args.qmp_sockets,
            "agent_socket": args.agent_socket,
        });
        writeln!(output, "{read}")?;
    }
    Ok(())
}
