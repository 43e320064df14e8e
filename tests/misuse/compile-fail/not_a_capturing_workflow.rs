use dormouse_core::{App, Workflow};

fn main() {
    let rounds = 5;
    let _ = App::new().workflow("order", move |_: Workflow, _: ()| async move { Ok(rounds) });
}
