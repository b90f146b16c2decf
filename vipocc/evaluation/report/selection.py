"""What chose the model that was evaluated, in words: the sentence that tells honest test numbers from chosen ones."""

from __future__ import annotations

from vipocc.evaluation.report.content import Report


def selection(report: Report) -> tuple[str, bool]:
    """Return what chose the evaluated model, and whether a reader has to be warned of it.

    `Report.checkpoint` has the rule, whether the user `named` the folder, and `shared_with_val` and
    `shared_with_train`: how many of the evaluated frames the workspace's splits list there, too.
    """
    held = report.checkpoint
    if held is None:
        return "No trained checkpoint was chosen for this report.", False
    if held.get("rule") is None:
        return "Nothing is known of what chose the checkpoint.", True
    trained = int(held.get("shared_with_train") or 0)
    seen = f" {trained:,} of the evaluated frames are in split train." if trained else ""
    if report.split == "train":
        return f"The checkpoint is {held['rule']}, and it learned from split train: these figures flatter it.", True
    if held.get("named"):
        text = "The checkpoint was named by the user: which frames chose it is not known here."
        return text + seen, bool(trained)
    metric = f" by {held['metric']}" if held.get("metric") else ""
    rule = f"The checkpoint is {held['rule']}{metric}."
    if report.split == "val":
        return f"{rule} Validation frames chose it, so figures on val flatter it.", True
    if shared := int(held.get("shared_with_val") or 0):
        told = f"{shared:,} of the evaluated frames are validation frames: they chose the checkpoint that they judge."
        return f"{rule} {told}{seen}", True
    if "shared_with_val" not in held:
        return f"{rule} Whether split {report.split} shares frames with val was not looked at.", False
    told = f"No evaluated frame is a validation frame: validation never chose the numbers of split {report.split}."
    return f"{rule} {told}{seen}", bool(trained)
