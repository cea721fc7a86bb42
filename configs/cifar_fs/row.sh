#!/bin/sh
# Everything of one backbone on CIFAR-FS, unattended: pre-training, then SIB at 1 and 5 shots, with K = 0 to 3 in their
# results, and the same checkpoints with K = 5.
#
#     sh configs/cifar_fs/row.sh wrn28_10 --trainer.precision bf16-mixed
#
# The first argument is what the names of the configs begin with: conv4, resnet12, resnet12_narrow or wrn28_10. All
# others are options of `fit` and `test`. What is done stays; after a kill the same command goes on where it was. The
# figures are in runs/*/version_*/results.json, and `python -m fewshot results runs/` prints them.
set -eu
configs=$(dirname "$0")
backbone=${1:?name a backbone: conv4, resnet12, resnet12_narrow or wrn28_10}
shift

for part in pretrain sib_5way1shot sib_5way5shot; do
    config=$configs/${backbone}_$part.yaml
    experiment=cifar_fs_${backbone}_$part
    if ! ls "runs/$experiment"/version_*/results.json >/dev/null 2>&1; then
        from=null # a run that was stopped before its first checkpoint is begun again
        for run in "runs/$experiment"/version_*; do
            if [ -f "$run/unfinished" ] && [ -f "$run/checkpoints/last.ckpt" ]; then from=auto; fi
        done
        python -m fewshot fit --config "$config" "$@" --ckpt_path "$from"
    fi
    if [ "$part" != pretrain ] && ! ls "runs/${experiment}_k5"/version_*/results.json >/dev/null 2>&1; then
        python -m fewshot test --config "$config" --ckpt_path "runs/$experiment" --experiment "${experiment}_k5" \
            --model.method.test_steps 5 "$@"
    fi
done
