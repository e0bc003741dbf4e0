"""Every PEFT method under its own name, with its native config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.adapters import adalora_schedule
from peftkit.adapters.base import PeftAdapter, PromptLearning, ReadsPackedBytes, ReadsWeights
from peftkit.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel
    from transformers import PreTrainedModel, TrainerCallback


class Lora(PeftAdapter):
    """Add low-rank matrices beside weights: LoRA, DoRA, rsLoRA, PiSSA and their family."""

    Config = "peft:LoraConfig"
    can_fuse = True


class AdaptionPrompt(PeftAdapter):
    """Learn prompts that enter the upper attention layers through a gate (LLaMA-Adapter)."""

    Config = "peft:AdaptionPromptConfig"
    refused = (
        "adaption_prompt cannot be trained here: PEFT binds the base's forward before trl gives it"
        " the loss"
    )
    way_out = "use prefix_tuning, which also learns prompts inside the attention layers"


class Beft(PeftAdapter):
    """Train only the bias of the value projections."""

    Config = "peft:BeftConfig"


class Boft(PeftAdapter):
    """Rotate weights by a product of sparse orthogonal butterfly factors."""

    Config = "peft:BOFTConfig"
    way_out = "say a boft_block_size that divides the columns of every targeted module"


class C3A(PeftAdapter):
    """Add block-circulant convolutions beside weights."""

    Config = "peft:C3AConfig"
    way_out = "say a block_size that divides both sides of every targeted module"


class Cartridge(PromptLearning):
    """Learn a key/value cache that stands for a long context."""

    Config = "peft:CartridgeConfig"
    needs = ("num_virtual_tokens", "how many tokens to learn, e.g. 20")
    # transformers drops the key/value prefix from layers that it recomputes.
    checkpoints_activations = False


class Cpt(PromptLearning):
    """Refine the embeddings of an in-context prompt (context-aware prompt tuning)."""

    Config = "peft:CPTConfig"
    refused = (
        "cpt cannot be trained here: PEFT weighs its loss from full logits, which trl never makes"
    )
    way_out = "use prompt_tuning with prompt_tuning_init: TEXT"


class Deft(ReadsPackedBytes):
    """Project a learned subspace out of each weight and inject a replacement."""

    Config = "peft:DeftConfig"


class Delora(ReadsWeights):
    """Decouple the angle and the strength of normalized low-rank updates."""

    Config = "peft:DeloraConfig"


class FourierFT(PeftAdapter):
    """Learn a few Fourier coefficients of each weight's update."""

    Config = "peft:FourierFTConfig"
    way_out = "say an n_frequency of at most rows * columns of the smallest module"


class Frod(ReadsWeights):
    """Learn full-rank updates: scales and sparse rotations in bases shared across layers."""

    Config = "peft:FrodConfig"


class Glora(ReadsWeights):
    """Scale and shift weights, biases and activations with learned support tensors."""

    Config = "peft:GloraConfig"


class Gralora(PeftAdapter):
    """Add low-rank matrices to each block of a weight on its own."""

    Config = "peft:GraloraConfig"
    way_out = "say a gralora_k that divides r and both sides of every targeted module"


class Hira(PeftAdapter):
    """Multiply weights elementwise with low-rank updates."""

    Config = "peft:HiraConfig"


class Hra(ReadsPackedBytes):
    """Rotate weights by a chain of Householder reflections."""

    Config = "peft:HRAConfig"


class IA3(PeftAdapter):
    """Rescale activations by learned vectors."""

    Config = "peft:IA3Config"


class Lily(PeftAdapter):
    """Share low-rank experts across layers, mixed by a router."""

    Config = "peft:LilyConfig"


class LNTuning(PeftAdapter):
    """Train only the layer norms."""

    Config = "peft:LNTuningConfig"


class LoHa(ReadsPackedBytes):
    """Add the Hadamard product of two low-rank matrices."""

    Config = "peft:LoHaConfig"


class LoKr(ReadsPackedBytes):
    """Add Kronecker products of small matrices."""

    Config = "peft:LoKrConfig"


class Miss(PeftAdapter):
    """Share one small matrix among the shards of each weight."""

    Config = "peft:MissConfig"
    way_out = "say an r that divides the columns of every targeted module"


class Oft(PeftAdapter):
    """Rotate weights by block-diagonal orthogonal matrices."""

    Config = "peft:OFTConfig"
    way_out = "say an oft_block_size that divides the columns of every targeted module"


class Shira(PeftAdapter):
    """Train a sparse subset of each weight's elements."""

    Config = "peft:ShiraConfig"
    way_out = "say a smaller r: r * (rows + columns) is how many elements it trains"


class PromptTuning(PromptLearning):
    """Learn embeddings that stand before every input."""

    Config = "peft:PromptTuningConfig"
    needs = ("num_virtual_tokens", "how many tokens to learn, e.g. 20")


class MultitaskPromptTuning(PromptLearning):
    """Learn one prompt for many tasks, and a low-rank part for each."""

    Config = "peft:MultitaskPromptTuningConfig"
    refused = (
        "multitask_prompt_tuning cannot be trained here: it needs a task id with every row, which"
        " no task gives"
    )
    way_out = "train one prompt_tuning a task"


class Osf(ReadsWeights):
    """Train the least significant singular directions of each weight, the others frozen."""

    Config = "peft:OSFConfig"


class PTuning(PromptLearning):
    """Learn virtual tokens through a small encoder."""

    Config = "peft:PromptEncoderConfig"
    needs = ("num_virtual_tokens", "how many tokens to learn, e.g. 20")

    has_own_checkpoints = True

    def load_checkpoint(self, model: PreTrainedModel | PeftModel, checkpoint: Path) -> None:
        """Put the encoder back, of which PEFT saves only the tokens that it computed."""
        from peftkit.adapters.extra_state import read_state
        from peftkit.adapters.prompt_encoder import put_back

        put_back(model, read_state(checkpoint))

    def callbacks(self) -> Sequence[TrainerCallback]:
        """Return what keeps the encoder in checkpoints."""
        from peftkit.adapters.prompt_encoder import encoder_keeper

        return (encoder_keeper(),)


class Peanut(ReadsPackedBytes):
    """Add small neural networks that read the weights beside them."""

    Config = "peft:PeanutConfig"


class Poly(PeftAdapter):
    """Mix an inventory of LoRA skills per task."""

    Config = "peft:PolyConfig"
    refused = "poly cannot be trained here: it needs a task id with every row, which no task gives"
    way_out = "train one lora a task"


class PrefixTuning(PromptLearning):
    """Learn key/value prefixes for every layer."""

    Config = "peft:PrefixTuningConfig"
    needs = ("num_virtual_tokens", "how many tokens to learn, e.g. 20")
    # transformers drops the key/value prefix from layers that it recomputes.
    checkpoints_activations = False

    @classmethod
    def conflicts(
        cls, options: Mapping[str, Any], method: str, method_options: Mapping[str, Any]
    ) -> list[str]:
        """Refuse the projection too: what PEFT saves of it fits no model that could go on."""
        found = super().conflicts(options, method, method_options)
        if options.get("prefix_projection") is True:
            found.append(
                "prefix_projection cannot be resumed, since PEFT saves what it computed and not the"
                " projection; say false, or use p_tuning"
            )
        return found


class Psoft(ReadsWeights):
    """Rotate the principal subspace of each weight."""

    Config = "peft:PsoftConfig"


class Pvera(PeftAdapter):
    """Learn scaling vectors of shared random matrices, with a sampled latent."""

    Config = "peft:PveraConfig"


class RandLora(PeftAdapter):
    """Learn full-rank updates as sums of scaled random matrices."""

    Config = "peft:RandLoraConfig"


class Road(PeftAdapter):
    """Rotate pairs of activations by learned angles."""

    Config = "peft:RoadConfig"
    way_out = "say a group_size that divides the rows of every targeted module"


class Supertuning(ReadsWeights):
    """Train a sparse support of each weight's numbers, chosen by magnitude."""

    Config = "peft:SupertuningConfig"


class TinyLora(ReadsWeights):
    """Learn a handful of numbers on each weight's singular subspace."""

    Config = "peft:TinyLoraConfig"


class TrainableTokens(PeftAdapter):
    """Train the embeddings of chosen tokens only."""

    Config = "peft:TrainableTokensConfig"
    needs = ("token_indices", "the ids of the tokens to train")


class UniLora(PeftAdapter):
    """Learn one vector from which every layer's LoRA is drawn."""

    Config = "peft:UniLoraConfig"


class VBLora(PeftAdapter):
    """Compose LoRA from a bank of vectors shared by all layers."""

    Config = "peft:VBLoRAConfig"
    way_out = "say a vector_length that divides both sides of every targeted module"


class Vera(PeftAdapter):
    """Learn scaling vectors of random matrices shared by all layers."""

    Config = "peft:VeraConfig"


class WaveFT(PeftAdapter):
    """Learn a few wavelet coefficients of each weight's update."""

    Config = "peft:WaveFTConfig"
    way_out = "say an n_frequency of at most rows * columns of the smallest module"


class XLora(PeftAdapter):
    """Mix existing LoRA adapters by a learned gate."""

    Config = "peft:XLoraConfig"
    refused = (
        "xlora cannot be trained here: its gate reads hidden states of the full forward, which"
        " trl's loss does not return"
    )
    way_out = "train one lora on all the data, or go on with one of the adapters (from: PATH)"


class Shadow(PeftAdapter):
    """Train a small network that shadows the base through its layers."""

    Config = "peft:ShadowConfig"
    needs = ("auxiliary_loss_weight", "say 0, since trl's loss leaves the shadow's own loss out")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.auxiliary_loss_weight > 0:
            raise UsageError(
                f"auxiliary_loss_weight {config.auxiliary_loss_weight} would be ignored: trl's loss"
                " leaves out the shadow's own, which serves only unload_shadow()",
                hint="say auxiliary_loss_weight: 0",
            )


class AdaLora(PeftAdapter):
    """Spread a rank budget over weights by importance while training."""

    Config = "peft:AdaLoraConfig"
    needs = ("total_step", "the number of optimizer steps of the whole run")
    has_own_checkpoints = True

    def callbacks(self) -> Sequence[TrainerCallback]:
        """Return the schedule without which AdaLoRA never reallocates its ranks."""
        return (adalora_schedule.rank_schedule(),)

    def state_bytes(self, model: PreTrainedModel | PeftModel) -> Sequence[int]:
        """Return what the schedule remembers of each trained number."""
        return adalora_schedule.state_bytes(model)

    def load_checkpoint(self, model: PreTrainedModel | PeftModel, checkpoint: Path) -> None:
        """Put every rank back, and say which of them the adapter keeps."""
        adalora_schedule.put_back(model, checkpoint)


class Adamss(ReadsWeights):
    """Train low-rank updates in subspaces clustered from each weight's singular vectors."""

    Config = "peft:AdamssConfig"
    way_out = "pip install 'peftkit[adamss]'"

    def callbacks(self) -> Sequence[TrainerCallback]:
        """Return what allocates subspaces under `use_asa: true`."""
        if not self.config.use_asa:
            return ()
        from peftkit.adapters.adamss_schedule import subspace_schedule

        return (subspace_schedule(),)


def adapter_class(config_name: str) -> type[PeftAdapter]:
    """Return the class here whose native config has this name, e.g. `LoraConfig`."""
    return _BY_CONFIG[config_name]


_BY_CONFIG = {
    kind.Config.removeprefix("peft:"): kind
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, PeftAdapter) and "Config" in vars(kind)
}
