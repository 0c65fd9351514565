"""Layers that multi-task models are built from. They know features by name and nothing of tasks."""

from mtl_zoo.layers.balanced_mixture import BalancedMixture
from mtl_zoo.layers.biased_logit import BiasedLogit
from mtl_zoo.layers.cross_stitch_unit import CrossStitchUnit
from mtl_zoo.layers.datetime_encoder import DatetimeEncoder
from mtl_zoo.layers.dense_stack import DenseStack
from mtl_zoo.layers.domain_blocks import DomainBlocks
from mtl_zoo.layers.domain_shares import DomainShares
from mtl_zoo.layers.dselect_gate import DSelectKGate
from mtl_zoo.layers.entity_list import EntityListEncoder
from mtl_zoo.layers.expert_bank import ExpertBank
from mtl_zoo.layers.expert_gate import BaseGate, ExpertGate
from mtl_zoo.layers.expert_mixture import ExpertMixture
from mtl_zoo.layers.feature_embedding import FeatureEmbedding
from mtl_zoo.layers.feature_fusion import AttentionFusion, GatedFusion
from mtl_zoo.layers.feature_mask import FeatureMask
from mtl_zoo.layers.funnel_mixture import FunnelMixture
from mtl_zoo.layers.funnel_product import FunnelProduct
from mtl_zoo.layers.gate_unit import GateUnit
from mtl_zoo.layers.gates import make_gate
from mtl_zoo.layers.image_cnn import ImageCNN
from mtl_zoo.layers.image_encoder import ImageEncoder
from mtl_zoo.layers.layer_mixture import LayerMixture
from mtl_zoo.layers.low_rank_feature_gate import LowRankFeatureGate
from mtl_zoo.layers.lstm_bank import LSTMBank
from mtl_zoo.layers.missing_inputs import MissingInputs
from mtl_zoo.layers.native_fusion import NativeFusion
from mtl_zoo.layers.neighbour_attention import NeighbourAttention
from mtl_zoo.layers.padding_mask import PaddingMask
from mtl_zoo.layers.partitioned_normalization import PartitionedNormalization
from mtl_zoo.layers.periodic_encoder import PeriodicEncoder
from mtl_zoo.layers.piecewise_linear_encoder import PiecewiseLinearEncoder
from mtl_zoo.layers.side_vector import SideVector
from mtl_zoo.layers.sluice_unit import SluiceUnit
from mtl_zoo.layers.stack_columns import StackColumns
from mtl_zoo.layers.stacked_mixtures import StackedMixtures
from mtl_zoo.layers.star_dense import StarDense
from mtl_zoo.layers.star_stack import StarStack
from mtl_zoo.layers.stop_gradient import StopGradient
from mtl_zoo.layers.sub_network_routing import SubNetworkRouting
from mtl_zoo.layers.tied_bank import TiedBank
from mtl_zoo.layers.training_only import TrainingOnly
from mtl_zoo.layers.transfer_attention import TransferAttention
from mtl_zoo.layers.unstack_columns import UnstackColumns
from mtl_zoo.layers.user_item_pair import UserItemPair
from mtl_zoo.layers.vector_encoder import VectorEncoder

__all__ = [
    "AttentionFusion",
    "BalancedMixture",
    "BaseGate",
    "BiasedLogit",
    "CrossStitchUnit",
    "DSelectKGate",
    "DatetimeEncoder",
    "DenseStack",
    "DomainBlocks",
    "DomainShares",
    "EntityListEncoder",
    "ExpertBank",
    "ExpertGate",
    "ExpertMixture",
    "FeatureEmbedding",
    "FeatureMask",
    "FunnelMixture",
    "FunnelProduct",
    "GateUnit",
    "GatedFusion",
    "ImageCNN",
    "ImageEncoder",
    "LSTMBank",
    "LayerMixture",
    "LowRankFeatureGate",
    "MissingInputs",
    "NativeFusion",
    "NeighbourAttention",
    "PaddingMask",
    "PartitionedNormalization",
    "PeriodicEncoder",
    "PiecewiseLinearEncoder",
    "SideVector",
    "SluiceUnit",
    "StackColumns",
    "StackedMixtures",
    "StarDense",
    "StarStack",
    "StopGradient",
    "SubNetworkRouting",
    "TiedBank",
    "TrainingOnly",
    "TransferAttention",
    "UnstackColumns",
    "UserItemPair",
    "VectorEncoder",
    "make_gate",
]
