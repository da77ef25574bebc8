//! The `ingle` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ingle::cli::main()
}
